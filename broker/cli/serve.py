"""`mesh serve`: settings from flags and files, then the broker itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Annotated, Final, cast

from cyclopts import Parameter

from broker.cli.exits import UsageError

CONFIG_VARIABLE: Final = "MESH_CONFIG"
SECRETS_VARIABLE: Final = "MESH_SECRETS_DIR"

Config = Annotated[Path | None, Parameter(env_var=CONFIG_VARIABLE)]
SecretsDir = Annotated[Path | None, Parameter(env_var=SECRETS_VARIABLE)]


def serve(
    *,
    dev: Annotated[bool | None, Parameter(negative="")] = None,
    data: Path | None = None,
    mesh_listen: str | None = None,
    api_listen: str | None = None,
    metrics_listen: str | None = None,
    log_level: str | None = None,
    config: Config = None,
    secrets_dir: SecretsDir = None,
) -> int:
    """Run a broker until SIGTERM or Ctrl-C.

    A flag wins over the environment (MESH_DATA_DIR, MESH_DISPATCH__LEASE_S), that over the directory of secrets, that
    over the configuration file.

    Parameters
    ----------
    dev
        No certificates, every agent is let in: for this machine only.
    data
        Directory of jobs and all that must survive a restart; made if it does not exist. Default: mesh-data.
    mesh_listen
        HOST:PORT for agents. Default: 127.0.0.1:7401.
    api_listen
        HOST:PORT for submitters and operators. Default: 127.0.0.1:7402.
    metrics_listen
        HOST:PORT for metrics and health. Default: 127.0.0.1:7403.
    log_level
        debug, info, warning or error. Default: info.
    config
        TOML file with settings.
    secrets_dir
        Directory with one file for each secret setting.
    """
    from broker.errors import ConfigError
    from broker.settings import Settings

    given: dict[str, object] = {
        "dev": dev,
        "data_dir": data,
        "mesh_listen": mesh_listen,
        "api_listen": api_listen,
        "metrics_listen": metrics_listen,
        "log_level": log_level,
    }
    flags = {key: value for key, value in given.items() if value is not None}
    try:
        settings = Settings.load(flags, config=config, secrets_dir=secrets_dir)
    except ConfigError as error:
        raise UsageError(error.text) from error

    with _absent("rich"):
        import structlog  # noqa: F401 - loads rich if it can, a tenth of the time that a broker needs to start

    from broker.app import serve as run

    return run(settings)


@contextmanager
def _absent(module: str) -> Iterator[None]:
    """As if a module were not installed: for libraries that load it although nothing of it is used."""
    modules = cast("dict[str, ModuleType | None]", sys.modules)
    known = modules.pop(module, None)
    modules[module] = None
    try:
        yield
    finally:
        del modules[module]
        if known is not None:
            modules[module] = known
