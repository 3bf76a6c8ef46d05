"""What an error says that Dagster kept: the line that a person needs, of the error that is not Dagster's own."""

from dagster_shared.error import SerializableErrorInfo

UNREACHABLE = "DagsterUserCodeUnreachableError"

_WRAPPERS = {
    "DagsterExecutionStepExecutionError",
    "DagsterExecutionLoadInputError",
    "DagsterExecutionHandleOutputError",
    "SensorExecutionError",
    "ScheduleExecutionError",
}
_LENGTH = 400


def reason(error: SerializableErrorInfo | None) -> str:
    """The first line of the error that Dagster's are around, or of what it waited for too long; "" without any."""
    while error and (cause := error.cause):
        if not (error.cls_name in _WRAPPERS or error.cls_name == cause.cls_name == UNREACHABLE):
            break
        error = cause
    return first_line(error.message if error else "")


def first_line(text: str) -> str:
    """The first line that is not empty, shortened."""
    line = next((line for line in text.splitlines() if line.strip()), "").strip()
    return line if len(line) <= _LENGTH else line[: _LENGTH - 1] + "…"
