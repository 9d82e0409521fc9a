"""A pool as --help has it by default: tests say what matters to them."""

from minicorn.pool.forking import ForkSource
from minicorn.pool.pool import Pool


def make_pool(size: int, **options: object) -> Pool:
    """A pool that sets no limits, and forks workers by itself; `options` in place of what that has."""
    usual: dict[str, object] = {
        "graceful_timeout": 30.0,
        "max_boot_failures": 0,
        "fork_source": ForkSource.ARBITER,
        "development": False,
        "refork_after": (),
    }
    return Pool(size, **usual | options)  # type: ignore[arg-type]
