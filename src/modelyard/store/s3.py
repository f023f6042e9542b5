"""Objects in an S3-compatible bucket."""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from modelyard.core.digest import Digest, is_digest
from modelyard.core.errors import StoreError
from modelyard.core.require import require
from modelyard.store.folder import hex_of, missing, verified

_URL_RULE = "s3://BUCKET or s3://BUCKET/PREFIX"
_MISSING = {"NoSuchKey", "404", "NotFound"}


class S3Objects:
    """An `ObjectStore` in a bucket, at `<prefix>/<first two hex digits>/<the other 62>`.

    Endpoint, region and credentials come from boto3's usual places (`AWS_ENDPOINT_URL`, `AWS_REGION`,
    `AWS_ACCESS_KEY_ID`, ... or its files); none of them appears in an error, a log or a `repr`. boto3 is
    imported and the bucket reached when first used.
    """

    def __init__(self, url: str, *, timeout: float = 10.0, attempts: int = 3) -> None:
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc or "@" in parts.netloc or parts.query or parts.fragment:
            # The value is left out: it may hold what somebody took for a place for credentials.
            raise StoreError(
                "the objects URL names no bucket",
                rule=_URL_RULE,
                fix="give credentials through the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)",
            )
        self._bucket = parts.netloc
        self._prefix = parts.path.strip("/") + "/" if parts.path.strip("/") else ""
        self._timeout = timeout
        self._attempts = attempts
        self._made: Any = None
        self._lock = threading.Lock()

    @property
    def _place(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def __repr__(self) -> str:
        return f"S3Objects({self._place!r})"

    def put(self, data: bytes) -> Digest:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        if self._size(digest) != len(data):
            with self._door("an object cannot be written"):
                self._client().put_object(
                    Bucket=self._bucket,
                    Key=self._key(digest),
                    Body=data,
                    # The server refuses bytes that were damaged on the way.
                    ChecksumSHA256=base64.b64encode(bytes.fromhex(hex_of(digest))).decode(),
                )
        return digest

    def get(self, digest: Digest) -> bytes:
        key = self._key(digest)
        with self._door("an object cannot be read", absent=digest):
            data: bytes = self._client().get_object(Bucket=self._bucket, Key=key)["Body"].read()
        return verified(data, digest, self._place)

    def has(self, digest: Digest) -> bool:
        return self._size(digest) is not None

    def digests(self) -> Iterator[Digest]:
        start = len(self._prefix)
        with self._door("the objects cannot be listed"):
            pages = self._client().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix):
                for item in page.get("Contents", ()):
                    digest = "sha256:" + item["Key"][start:].replace("/", "", 1)
                    if is_digest(digest) and self._key(digest) == item["Key"]:
                        yield digest

    def _key(self, digest: Digest) -> str:
        name = hex_of(digest)
        return f"{self._prefix}{name[:2]}/{name[2:]}"

    def _size(self, digest: Digest) -> int | None:
        key = self._key(digest)
        errors = require("botocore.exceptions", extra="s3")
        with self._door("the bucket cannot be read"):
            try:
                return int(self._client().head_object(Bucket=self._bucket, Key=key)["ContentLength"])
            except errors.ClientError as error:
                if _code(error) not in _MISSING:
                    raise
        self._check_bucket()
        return None

    def _check_bucket(self) -> None:
        """A HEAD answers 404 for a missing bucket too; that must not read as a missing object."""
        with self._door("the bucket cannot be read"):
            self._client().head_bucket(Bucket=self._bucket)

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                boto3 = require("boto3", extra="s3")
                config = require("botocore.config", extra="s3").Config(
                    connect_timeout=self._timeout,
                    read_timeout=6 * self._timeout,
                    retries={"max_attempts": self._attempts, "mode": "standard"},
                )
                region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
                # A session of our own: boto3's default one is shared and not safe from many threads.
                session = boto3.session.Session(region_name=region)
                self._made = session.client(
                    "s3", config=config, region_name=session.region_name or "us-east-1"
                )
            return self._made

    @contextmanager
    def _door(self, what: str, *, absent: Digest | None = None) -> Iterator[None]:
        errors = require("botocore.exceptions", extra="s3")
        try:
            yield
        except errors.ClientError as error:
            code = _code(error)
            if absent is not None and code in _MISSING:
                raise missing(absent, self._place) from None
            fix = {
                "NoSuchBucket": "make the bucket, or correct the objects URL",
                "404": "make the bucket, or correct the objects URL",
                "AccessDenied": "grant the credentials the right to list, read and write the bucket",
                "403": "check the credentials and their rights on the bucket",
                "InvalidAccessKeyId": "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
                "SignatureDoesNotMatch": "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            }.get(code, "see the object store's log")
            raise StoreError(what, value=code, where=self._place, fix=fix) from None
        except (errors.BotoCoreError, errors.HTTPClientError, OSError) as error:
            # Only the kind of error: botocore's text quotes the endpoint, which may hold credentials.
            raise StoreError(
                what,
                value=type(error).__name__,
                where=self._place,
                fix="check AWS_ENDPOINT_URL, the network and the credentials",
            ) from None


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
