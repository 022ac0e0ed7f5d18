"""What each memory technique for long-sequence Transformers costs and saves, measured."""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Give ``reformer_bench.predict``, importing torch only for those who use it."""
    if name == "predict":
        import importlib

        return importlib.import_module("reformer_bench.measure.predict").predict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
