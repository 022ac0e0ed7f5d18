"""What each memory technique for long-sequence Transformers costs and saves, measured."""

__version__ = "0.1.0"
