"""A finished run as files that work without Submillion: a merged checkpoint, ONNX, int8 ONNX.

`making` has the order of the steps and the rows that an export is checked on; `formats` writes each kind, `checking`
loads it as a stranger would and judges it against the run, `manifest` describes a folder, `card` its use, `hub` uploads
it, or the run's adapter. Nothing here trains.
"""

from submillion.exports.checking import TOLERANCE
from submillion.exports.hub import Upload, check, of_adapter, of_export, push
from submillion.exports.making import Written, write
from submillion.exports.manifest import Format

__all__ = [
    "TOLERANCE",
    "Format",
    "Upload",
    "Written",
    "check",
    "of_adapter",
    "of_export",
    "push",
    "write",
]
