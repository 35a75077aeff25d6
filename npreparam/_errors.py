"""The exception classes: every one is a ValueError or a TypeError, so callers need not import them to catch them."""


class ArgumentError(ValueError):
    """An argument has a value outside its rule (a stride of 0, a negative padding, an unknown padding name)."""


class ShapeError(ArgumentError):
    """Shapes do not fit each other, an array has the wrong rank, or a window would produce no output."""


class DTypeError(TypeError):
    """An array has a dtype that the operation does not take, or two arrays of one call have different dtypes."""


class UnusedInputError(ValueError):
    """A gradient was asked for with respect to an input that the output does not depend on."""


class StateError(ValueError):
    """A state dict does not fit the module it is loaded into."""


class FormatError(ValueError):
    """A file is truncated, corrupt, or not of the format it should be."""


class FusionError(ValueError):
    """A linear tree is not one convolution: says which branch, why, and what would make it exact."""

    def __init__(self, reason: str, remedy: str, branch: str = "") -> None:
        self.reason, self.remedy, self.branch = reason, remedy, branch
        super().__init__(f"{f'branch {branch}: ' if branch else ''}{reason}; {remedy}")

    def within(self, name: str) -> "FusionError":
        """The same refusal, seen from the module that holds the branch under `name`."""
        return FusionError(self.reason, self.remedy, f"{name}.{self.branch}" if self.branch else name)
