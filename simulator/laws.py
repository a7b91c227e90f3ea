"""Laws of chance as a scenario states them: how long things take, and when jobs arrive."""

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from simulator.model import Above, Count, Model, OneOf, PerSecond, Seconds, Share


class LogNormal(Model):
    """By mean and squared coefficient of variation, or by the median and the 99th percentile."""

    mean: Seconds | None = None
    scv: Above | None = None
    p50: Seconds | None = None
    p99: Seconds | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        by_mean = self.mean is not None and self.scv is not None
        by_quantiles = self.p50 is not None and self.p99 is not None
        if by_mean == by_quantiles:
            raise ValueError("give `mean` and `scv`, or `p50` and `p99`")
        if self.mean == 0:
            raise ValueError("`mean` must be above 0")
        if self.p50 is not None and self.p99 is not None and not 0 < self.p50 <= self.p99:
            raise ValueError("0 < p50 <= p99 is wanted")
        return self


class Pareto(Model):
    """A heavy tail: `shape` above 1 (2 and less: no variance); `most` cuts it."""

    mean: Seconds
    shape: Annotated[float, Field(gt=1, le=100)] = 2.5
    most: Seconds | None = None


class HyperExponential(Model):
    """Two exponentials with balanced means; `scv` above 1."""

    mean: Seconds
    scv: Annotated[float, Field(gt=1, le=1e6)]


class Uniform(Model):
    """Between two bounds."""

    least: Seconds
    most: Seconds

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.least > self.most:
            raise ValueError("`least` is above `most`")
        return self


class Empirical(Model):
    """Measured quantiles at equal steps, from the least to the greatest; what lies between is interpolated."""

    quantiles: Annotated[tuple[Seconds, ...], Field(min_length=2, max_length=10_001)]

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if list(self.quantiles) != sorted(self.quantiles):
            raise ValueError("quantiles must not fall")
        return self


class Law(OneOf):
    """How long something takes. A plain duration is constant, or exponential with that mean for times to failure."""

    constant: Seconds | None = None
    exponential: Seconds | None = None
    lognormal: LogNormal | None = None
    pareto: Pareto | None = None
    hyperexponential: HyperExponential | None = None
    uniform: Uniform | None = None
    empirical: Empirical | None = None


def _constant(value: object) -> object:
    return {"constant": value} if isinstance(value, str | int | float) else value


def _exponential(value: object) -> object:
    return {"exponential": value} if isinstance(value, str | int | float) else value


ConstantLaw = Annotated[Law, BeforeValidator(_constant)]
"""A law; a plain duration is constant."""
MeanLaw = Annotated[Law, BeforeValidator(_exponential)]
"""A law; a plain duration is the mean of an exponential one."""


def _quantiles(value: object) -> object:
    if isinstance(value, dict) and set(value) <= {"p50", "p99"}:
        return {"lognormal": value}
    return _constant(value)


QuantileLaw = Annotated[Law, BeforeValidator(_quantiles)]
"""A law; a plain duration is constant, `{p50, p99}` is lognormal."""


# --- arrivals -------------------------------------------------------------------------------------------------------


class Diurnal(Model):
    """A day: the rate swings around its mean as a sine, highest at `peak_at` after the start of each period."""

    mean: PerSecond
    swing: Share = 0.5
    period: Annotated[Seconds, Field(gt=0)] = 86_400.0
    peak_at: Seconds = 50_400.0


class Bursty(Model):
    """A Markov-modulated Poisson process: each state has a rate and a mean dwell, visited in turn."""

    rates: Annotated[tuple[PerSecond, ...], Field(min_length=2, max_length=16)]
    dwell: Annotated[tuple[Seconds, ...], Field(min_length=2, max_length=16)]

    @model_validator(mode="after")
    def _has_pairs(self) -> Self:
        if len(self.rates) != len(self.dwell) or min(self.dwell) <= 0:
            raise ValueError("`rates` and `dwell` must be equally long, and each dwell above 0")
        return self


class Batch(Model):
    """Batches of `size` jobs that arrive as a Poisson process."""

    rate: PerSecond
    size: Count


class Cron(Model):
    """`jobs` jobs whenever the five fields (minute hour day month weekday) match; the run starts on Monday, 1 January.

    Day and month count from that start, with months of 30 days: a plan, not a calendar.
    """

    when: Annotated[str, Field(pattern=r"^\S+( +\S+){4}$")]
    jobs: Count = 1


class Closed(Model):
    """So many clients: each thinks, submits one job, waits until it is final, and thinks again."""

    clients: Count
    think: MeanLaw


def _file(value: object) -> object:
    return {"file": value} if isinstance(value, str) else value


class Trace(Model):
    """Times of arrivals in seconds since the start, one a line, in a file; `sha256` is what was read when it was."""

    file: str
    sha256: str = ""


class Weekly(Model):
    """As often as in each minute of the week of a profile's `work`; the run starts `begin` after Monday 00:00 UTC."""

    file: str
    work: str
    sha256: str = ""
    begin: Seconds = 0.0


class Arrivals(OneOf):
    """When jobs arrive."""

    poisson: PerSecond | None = None
    even: PerSecond | None = None
    diurnal: Diurnal | None = None
    bursty: Bursty | None = None
    batch: Batch | None = None
    cron: Cron | None = None
    closed: Closed | None = None
    trace: Annotated[Trace | None, BeforeValidator(_file)] = None
    weekly: Weekly | None = None
