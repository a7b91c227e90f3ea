"""The figures as tables for people."""

from typing import Any

from rich.console import Console
from rich.table import Table


def show(console: Console, results: dict[str, Any]) -> None:
    """Print all that was measured."""
    console.print(_dispatch(results["dispatch"]))
    console.print(_steps(results["steps"]))
    console.print(_end_to_end(results["end_to_end"]))
    console.print(_open_loop(results["open_loop"]))
    if "simulation" in results:
        console.print(_simulation(results["simulation"]))
    memory = results["memory"]
    console.print(
        f"memory: {memory['bytes_per_queued_job']:,.0f} bytes a queued job ({memory['n']:,} jobs); "
        f"calibration: {_text(results['calibration']['loop_ns'])}"
    )


def _text(figure: Any) -> str:
    """A figure with its unit and spread."""
    if not isinstance(figure, dict):
        return f"{figure:,}" if isinstance(figure, int | float) else str(figure)
    if figure["value"] is None:
        return "not measured"
    spread = f" (spread {figure['spread']:,})" if figure["spread"] is not None else ""
    unit = "" if figure["unit"] == "1" else f" {figure['unit']}"
    return f"{figure['value']:,}{unit}{spread}"


def _dispatch(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Dispatcher alone: us a job, from submission to outcome")
    for heading in ("agents", "queued", "median", "min", "max", "rounds"):
        table.add_column(heading, justify="right")
    for row in rows:
        cost = row["us_per_job"]
        numbers = (row["agents"], row["queued"], cost["median"], cost["min"], cost["max"], row["rounds"])
        table.add_row(*(f"{number:,}" for number in numbers))
    return table


def _steps(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Dispatcher alone: the longest single call")
    for heading in ("case", "size", "calls", "longest", "in"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(row["case"], f"{row['size']:,}", f"{row['calls']:,}", f"{row['longest_ms']:,} ms", row["in"])
    return table


def _simulation(measured: dict[str, Any]) -> Table:
    memory = measured["memory"]
    kept = f"{memory['bytes_per_queued_job']:,.0f} bytes a queued job beyond the dispatcher ({memory['n']:,} jobs)"
    table = Table(title="Simulated jobs a second and core", caption=kept)
    for heading in ("what", "jobs/s", "us a job", "of SimPy's M/M/20", "of Ciw's"):
        table.add_column(heading, justify="right")
    for row in measured["peers"]:
        table.add_row(f"M/M/20 in {row['name']}", _text(row["jobs_per_s"]), "", "", "")
    for row in measured["mesh"]:
        figures = (row[name] for name in ("jobs_per_s", "us_per_job", "ratio_to_simpy", "ratio_to_ciw"))
        form = ", compiled" if row.get("compiled") else ""
        table.add_row(f"{row['case']}, `{row['fidelity']}`{form}", *map(_text, figures))
    if "not_compiled" in measured:
        table.add_row("compiled", f"not measured: {measured['not_compiled']}", "", "", "")
    return table


def _end_to_end(flood: dict[str, Any]) -> Table:
    table = Table(title="End to end, as processes", show_header=False)
    for name, value in flood.items():
        if name == "cpu_us_per_job":
            for process, figure in value.items():
                table.add_row(f"cpu a job, {process}", _text(figure))
        else:
            table.add_row(name.replace("_", " "), _text(value))
    return table


def _open_loop(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Open loop: from due to outcome seen")
    for heading in ("rate", "achieved", "p50", "p99", "p99.9", "Jain"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            f"{row['rate']:,.0f}/s", *(_text(row[name]) for name in ("achieved", "p50_ms", "p99_ms", "p999_ms", "jain"))
        )
    return table
