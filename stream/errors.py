"""The errors thetastream raises, as one tree.

::

    StreamError
    ├── SettingsError            a setting has a bad value; the start is refused
    ├── RecordError              an event cannot be counted; it goes to the dead-letter topic
    ├── TopicMismatchError       a Kafka topic differs from the catalogue
    ├── StateVersionError        a state row was written by a version this one cannot read
    ├── FencedError              another process owns the partition; this one must exit
    ├── SourceError              an input file is missing or malformed
    ├── VerifyError              a verification cannot be made (which is not: it found a mismatch)
    ├── ItemParamsError          item parameters are no curve: not finite or out of range
    ├── LinkingError             two calibrations cannot be put on one scale
    ├── CalibrationError         a calibration gave no usable result; old parameters stay
    │   ├── CalibrationUnavailableError   the service cannot be reached or is busy (retriable)
    │   ├── CalibrationRefusedError       the service refused the request
    │   ├── CalibrationResponseError      the service's answer cannot be used
    │   ├── EstimationError               the observations cannot be fitted
    │   └── NothingToCalibrateError       no attempt was folded yet
    ├── PublishError             records cannot be published as they are; none became visible
    ├── BrokerUnavailableError   Kafka cannot be reached (retriable)
    ├── GroupSilentError         Kafka answers, the consumer group does not; this one must exit
    ├── DatabaseUnavailableError PostgreSQL cannot be used just now (retriable)
    ├── DatabaseSchemaError      tables are missing or differ: run `thetastream migrate`
    ├── MigrationError           a migration was refused; the ones before it stay applied
    └── LocalStackError          a part of the local stack cannot be started or ended
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BrokerUnavailableError",
    "CalibrationError",
    "CalibrationRefusedError",
    "CalibrationResponseError",
    "CalibrationUnavailableError",
    "DatabaseSchemaError",
    "DatabaseUnavailableError",
    "EstimationError",
    "FencedError",
    "GroupSilentError",
    "ItemParamsError",
    "LinkingError",
    "LocalStackError",
    "MigrationError",
    "NothingToCalibrateError",
    "PublishError",
    "RecordError",
    "SettingsError",
    "SourceError",
    "StateVersionError",
    "StreamError",
    "TopicMismatchError",
    "VerifyError",
]


class StreamError(Exception):
    """Root of every error thetastream raises on purpose."""

    retriable: ClassVar[bool] = False
    """Whether trying again later, with nothing changed, may succeed."""


class SettingsError(StreamError):
    """A setting has a value that is not allowed; correct it and start again."""


class RecordError(StreamError):
    """An event cannot be counted.

    Parameters
    ----------
    reason
        Code from :data:`schemas.attempt.REASONS`, a header of the dead letter.
    detail
        What is wrong, for a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class TopicMismatchError(StreamError):
    """A Kafka topic exists with another number of partitions than the catalogue asks for.

    Partition counts are fixed when a topic is made: rows of the state live in the partition of
    their key. To change them, create topics under another THETASTREAM_TOPIC_PREFIX and replay
    the log into them.
    """


class StateVersionError(StreamError):
    """A state row has a version that this release cannot read.

    Start the release that wrote it, or move to a release that lists this version in its
    changelog as readable. Nothing was changed.
    """


class FencedError(StreamError):
    """Another process has taken over a partition this one still held.

    Nothing of the unfinished flush became visible. The process exits with a non-zero status and
    may simply be started again.
    """


class BrokerUnavailableError(StreamError):
    """Kafka cannot be reached. Nothing is lost: work resumes when the broker answers."""

    retriable = True


class PublishError(StreamError):
    """Records cannot be published as they are: too large, an unknown topic, no rights, or closing.

    None of their transaction became visible. Check the topics with `thetastream topics describe`.
    """


class SourceError(StreamError):
    """An input file is missing, of an unknown kind, or malformed; the message names the line.

    Records before that line were delivered. Correct the file and read it again: repeated
    attempts are dropped as duplicates.
    """


class VerifyError(StreamError):
    """A verification cannot be made: the input is unusable or the database does not answer.

    Nothing was compared and nothing was changed.
    """


class ItemParamsError(StreamError, ValueError):
    """Item parameters are not finite or out of range; the message names the parameter."""


class LinkingError(StreamError, ValueError):
    """Two calibrations cannot be put on one scale: too few usable anchors in common.

    The new parameters are on a scale of their own and must not be applied.
    """


class CalibrationError(StreamError):
    """A calibration or scoring request gave no usable result. Old parameters stay in force."""


class CalibrationUnavailableError(CalibrationError):
    """The calibration service could not be reached, timed out, or was busy, at every try.

    Check R_IRT_BASE_URL and the service's /healthz; the next trigger asks again.
    """

    retriable = True
    retry_after_s: float | None = None
    """Seconds the service asked to wait, if it did."""


class CalibrationRefusedError(CalibrationError):
    """The calibration service refused the request (4xx); the message carries its reason.

    401 and 403: R_IRT_INTERNAL_TOKEN differs from the service's. Others name what in the
    request is wrong; the same request would be refused again.
    """


class CalibrationResponseError(CalibrationError):
    """The calibration service answered with something that is not the contract's response.

    Not JSON, fields missing, numbers not finite, or items and learners nobody asked for. The
    message says which; the service needs a look before the next try.
    """


class EstimationError(CalibrationError, ValueError):
    """The observations cannot be fitted (none, one learner, unknown model, bad anchors)."""


class LocalStackError(StreamError):
    """A part of the local stack cannot be started or ended; the message ends with its log."""


class DatabaseUnavailableError(StreamError):
    """PostgreSQL cannot be used: away, starting, full, or it does not let us in.

    Nothing is lost: what is to be written stays in Kafka until it is written.
    """

    retriable = True


class DatabaseSchemaError(StreamError):
    """A table or column is missing or of another kind; the message says which.

    Run `thetastream migrate`. A running sink goes on by itself once the tables fit.
    """


class MigrationError(StreamError):
    """PostgreSQL refused a migration; the message names the file and the reason.

    That file changed nothing; the files before it stay applied. Remove the cause and run
    `thetastream migrate` again.
    """


class NothingToCalibrateError(CalibrationError):
    """A calibration was asked for before any attempt was folded; nothing was published."""


class GroupSilentError(StreamError):
    """The consumer group was not heard of for long though Kafka answers: the client hangs.

    The process ends with a non-zero status; nothing is lost, start it again.
    """
