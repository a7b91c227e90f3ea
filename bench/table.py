"""The figures as tables for people, beside what is asked of them."""

from typing import Any, Final

from rich.console import Console
from rich.table import Table

ASKED: Final = {
    "jobs_per_s": ">= 15,000 1/s",
    "jain": ">= 0.9999",
    "ratio_durable_to_not": ">= 0.4",
    "mesh_help_s": "< 0.3 s",
    "mesh_sim_help_s": "< 0.5 s",
    "accepted_p99_ms": "<= grace + 0.5 s",
    "unaccepted_p99_ms": "<= 100 ms",
}
DEMO_ASKED: Final = "< 60 s"
SOLVE_ASKED: Final = {"equal": "18", "any": "17"}
SOLVE_S_ASKED: Final = "<= 60 s"
REPORT_ASKED: Final = "<= 3 MB"
SIMULATED_ASKED: Final = {"broker": ">= 40,000 1/s"}
SIMULATED_BYTES_ASKED: Final = "<= 300 B"


def show(console: Console, results: dict[str, Any]) -> None:
    """Print all that was measured."""
    console.print(_dispatch(results["dispatch"]))
    console.print(_steps(results["steps"]))
    console.print(_end_to_end(results["end_to_end"]))
    console.print(_open_loop(results["open_loop"]))
    if "simulation" in results:
        console.print(_simulation(results["simulation"]))
    if "commands" in results:
        console.print(_processes(results))
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
    kept += f", asked {SIMULATED_BYTES_ASKED}"
    table = Table(title="Simulated jobs a second and core", caption=kept)
    for heading in ("what", "jobs/s", "us a job", "of SimPy's M/M/20", "of Ciw's", "asked"):
        table.add_column(heading, justify="right")
    for row in measured["peers"]:
        table.add_row(f"M/M/20 in {row['name']}", _text(row["jobs_per_s"]), "", "", "", "")
    for row in measured["mesh"]:
        figures = (row[name] for name in ("jobs_per_s", "us_per_job", "ratio_to_simpy", "ratio_to_ciw"))
        form = ", compiled" if row.get("compiled") else ""
        table.add_row(
            f"{row['case']}, `{row['fidelity']}`{form}", *map(_text, figures), SIMULATED_ASKED.get(row["fidelity"], "")
        )
    if "not_compiled" in measured:
        table.add_row("compiled", f"not measured: {measured['not_compiled']}", "", "", "", "")
    return table


def _end_to_end(flood: dict[str, Any]) -> Table:
    table = _asked_table("End to end, as processes")
    for name, value in flood.items():
        if name == "cpu_us_per_job":
            for process, figure in value.items():
                table.add_row(f"cpu a job, {process}", _text(figure), "")
        else:
            table.add_row(name.replace("_", " "), _text(value), ASKED.get(name, ""))
    return table


def _processes(results: dict[str, Any]) -> Table:
    """Commands, failover, `solve`."""
    table = _asked_table("Commands and failover, as processes")
    for name in ("mesh_help_s", "mesh_agent_help_s", "mesh_sim_help_s"):
        command = name.removesuffix("_help_s").replace("_", "-")
        table.add_row(f"{command} --help", _text(results["commands"][name]), ASKED.get(name, ""))
    demo = results["commands"]["demo"]
    table.add_row("demo", f"{_text(demo['elapsed_s'])}{'' if demo['ok'] else ', NOT ok'}", DEMO_ASKED)
    for name, value in results["failover"].items():
        if name != "violations":
            table.add_row(f"failover, {name.replace('_', ' ')}", _text(value), ASKED.get(name, ""))
    for text in results["failover"]["violations"]:
        table.add_row("failover, VIOLATED", text, "")
    for zones, agents in SOLVE_ASKED.items():
        table.add_row(f"solve, zones {zones}: agents", _text(results["solve"][zones]["agents"]), agents)
        table.add_row(f"solve, zones {zones}: time", _text(results["solve"][zones]["seconds"]), SOLVE_S_ASKED)
    table.add_row("report of a simulation", _text(results["solve"]["report_bytes"]), REPORT_ASKED)
    return table


def _asked_table(title: str) -> Table:
    table = Table(title=title)
    for heading in ("figure", "reached", "asked"):
        table.add_column(heading)
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
