"""How wrong an estimator is at the user's own number of rows and width."""

import lazy_loader

# On first use: the options are read by --help, which must not wait for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "calibrate": ["calibrate", "consistency"],
        "result": ["Calibration"],
        "rows": ["CalibrationRow", "CheckRow"],
    },
)
