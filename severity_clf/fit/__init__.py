"""Fit heads, calibrate them, write them into a graph. Needs the extra `train`; scoring never imports this folder."""

from importlib.util import find_spec

# The door: one clear error for the whole folder.
_MISSING = [name for name in ("onnx", "safetensors", "scipy", "sklearn", "joblib") if find_spec(name) is None]
if _MISSING:
    raise ModuleNotFoundError(
        f"severity_clf.fit needs {', '.join(_MISSING)}; install it with: pip install 'severity-clf[train]'",
        name=_MISSING[0],
    )
