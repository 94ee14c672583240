"""Imports of optional packages, with errors that name the remedy."""

import importlib
from types import ModuleType

__all__ = ["import_extra"]


def import_extra(module: str, extra: str) -> ModuleType:
    """Import a module that needs optional packages, the extra ``xpnet[extra]``.

    Raises
    ------
    ModuleNotFoundError
        If its package is not installed.
    ImportError
        If the package is installed but cannot be imported, whatever the exception.
    """
    package = module.partition(".")[0]
    try:
        importlib.import_module(package)
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == package:
            raise ModuleNotFoundError(
                f"{package} is not installed; install it with pip install 'xpnet[{extra}]'"
            ) from None
        raise _broken(module, extra, error) from error
    except Exception as error:  # whatever a package raises that does not fit the others
        raise _broken(module, extra, error) from error


def _broken(module: str, extra: str, error: Exception) -> ImportError:
    reason = str(error).strip().partition("\n")[0]
    return ImportError(
        f"{module} is installed but cannot be imported ({type(error).__name__}: {reason}); "
        f"repair it with pip install --force-reinstall 'xpnet[{extra}]'"
    )
