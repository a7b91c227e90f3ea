"""Groups of the dispatcher's own tests."""

from tests.broker.dispatch.conftest import group

__all__ = ["group"]
