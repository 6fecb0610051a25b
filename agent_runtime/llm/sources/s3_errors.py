"""What S3 refuses, in words a user can act on. Layer: llm, pure.

The one idea: obstore tells S3's own error code, and the cause of a failed connection, only inside its text;
the words to look for are kept in one table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent_runtime.contract import FailureCode
from agent_runtime.llm.failures import LoadError, failure
from agent_runtime.observability.logging import redact


def explain(text: str, bucket: str, uri: str) -> LoadError:
    """The report for an error of obstore's with this text, about this bucket of the model at `uri`."""
    found = re.search(r"<Code>(\w+)</Code>", text)
    rule = next(
        rule for rule in _RULES if (found and found[1] in rule.codes) or re.search(rule.pattern, text)
    )
    said = found[1] if found else first_line(text)
    return failure(rule.code, f"{rule.what} {bucket} (model {uri}): {said}.", rule.remedy)


def first_line(text: str) -> str:
    """The part of an error's text that is meant for people."""
    return redact(text).splitlines()[0][:400].rstrip(". ")


@dataclass(frozen=True, slots=True)
class _Rule:
    """How a refusal is recognised, by S3's error code or by obstore's words, and what the user is told."""

    what: str
    code: FailureCode
    remedy: str
    codes: frozenset[str] = frozenset()
    pattern: str = r"(?!)"


_RULES = (
    _Rule(
        "There is no bucket", FailureCode.MODEL_NOT_FOUND,
        "Check the bucket's name in spec.model.uri, and AWS_REGION and AWS_ENDPOINT_URL in spec.template.",
        frozenset({"NoSuchBucket"}),
    ),
    _Rule(
        "No credentials were found for bucket", FailureCode.MODEL_ACCESS_DENIED,
        "Give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in spec.template (from a Secret), a web identity, "
        "or AWS_SKIP_SIGNATURE=true for a public bucket.",
        pattern=r"/latest/(api/token|meta-data)|[Mm]issing .*(AccessKeyId|SecretAccessKey)",
    ),
    _Rule(
        "The credentials are not valid for bucket", FailureCode.MODEL_TOKEN_INVALID,
        "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN when they are temporary, and "
        "the clock of the node.",
        frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
                   "RequestTimeTooSkewed", "InvalidClientTokenId"}),
    ),
    _Rule(
        "The region is wrong for bucket", FailureCode.CONFIG_INVALID,
        "Set AWS_REGION in spec.template to the region the bucket is in.",
        frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed"}),
        r"redirect without LOCATION",
    ),
    _Rule(
        "Access is denied to bucket", FailureCode.MODEL_ACCESS_DENIED,
        "Allow these credentials s3:ListBucket on the bucket and s3:GetObject on the folder's objects.",
        frozenset({"AccessDenied", "AllAccessDisabled", "AccountProblem"}),
        r"status code: 40[13]",
    ),
    _Rule(
        "The server is overloaded or failing for bucket", FailureCode.MODEL_HOST_OVERLOADED,
        "Nothing is wrong here: the next start goes on where this one ended.",
        frozenset({"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout"}),
        r"status code: (5\d\d|429)",
    ),
    _Rule(
        "The host name is unknown of the endpoint for bucket", FailureCode.MODEL_HOST_UNRESOLVED,
        "Let the pod ask its DNS server (egress to port 53), and check AWS_ENDPOINT_URL and AWS_REGION.",
        pattern=r"dns error|lookup address information",
    ),
    _Rule(
        "TLS failed with the endpoint for bucket", FailureCode.MODEL_HOST_TLS_FAILED,
        "Name the certificate of the endpoint's authority in SSL_CERT_FILE (spec.template), and check the "
        "clock of the node and the host name in AWS_ENDPOINT_URL.",
        pattern=r"InvalidCertificate|InvalidMessage|AlertReceived|PeerIncompatible|PeerMisbehaved",
    ),
    _Rule(
        "The endpoint does not answer for bucket", FailureCode.BUCKET_UNREACHABLE,
        "Let the pod reach the endpoint (egress policy, HTTPS_PROXY), and check AWS_ENDPOINT_URL and "
        "AWS_REGION.",
        pattern=r"",
    ),
)  # fmt: skip
