"""Opens a bucket: turns a base URI and an Airflow connection into a client of the Rust object store."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from nightbatch.adapters.object_store_names import Location, parse_uri
from nightbatch.errors import ConnectionInvalid
from nightbatch.ports import Connection

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Bucket

_RETRY = {"max_retries": 6, "retry_timeout": timedelta(seconds=90)}
_TIMES = {"timeout": timedelta(seconds=120), "connect_timeout": timedelta(seconds=10)}
"""One request moves 8 MiB at most, so two minutes bound even a slow line."""
_KEYS_LIVE_FOR = timedelta(minutes=10)
"""How long keys from a session are used before it is asked again; sessions renew theirs 10 to 15 minutes ahead."""

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

_MEMORY: dict[str, Bucket] = {}
"""The buckets of `memory://`; every opener of one name in this process sees the same files."""

_TYPES = {"s3": ("aws",), "gs": ("google_cloud_platform",), "az": ("wasb", "adls", "azure_data_lake")}


def open_bucket(location: Location, connection: Connection | None) -> Bucket:
    """Open a bucket. No request is sent yet. Raises ConnectionInvalid where the connection cannot be used."""
    from obstore.store import MemoryStore

    if location.scheme == "memory":
        return _MEMORY.setdefault(location.bucket, MemoryStore())
    expected = _TYPES[location.scheme]
    if connection is not None and connection.conn_type not in expected:
        raise ConnectionInvalid(
            connection.conn_id,
            problem=f"it is of type {connection.conn_type or 'nothing'}, and {location.scheme}:// needs {expected[0]}",
            remedy="Name a connection of that type, or none for the machine's own credentials",
        )
    openers = {"s3": _open_s3, "gs": _open_gcs, "az": _open_azure}
    return openers[location.scheme](location, connection)


def endpoint_of(connection: Connection | None) -> str:
    """Give the custom S3 endpoint of a connection, else of the environment, else nothing."""
    if connection is not None:
        extra = connection.extra
        service = _mapping(_mapping(extra.get("service_config")).get("s3"))
        found = service.get("endpoint_url") or extra.get("endpoint_url") or extra.get("host")
        if found:
            return str(found).rstrip("/")
    return (os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "").rstrip("/")


def identity_of(uri: str, connection: Connection | None) -> str:
    """Name a file or folder without secrets: the same for every spelling, and for a source and a sink."""
    location = parse_uri(uri)
    endpoint = endpoint_of(connection) if location.scheme == "s3" else ""
    return f"{location.uri} at {endpoint}" if endpoint else location.uri


# --- Amazon S3 and what speaks its protocol -------------------------------------------------------------------


def _open_s3(location: Location, connection: Connection | None) -> Bucket:
    from obstore.store import S3Store

    extra = connection.extra if connection is not None else {}
    endpoint = endpoint_of(connection)
    client: dict[str, Any] = {**_TIMES, "allow_http": endpoint.startswith("http://")}
    if extra.get("verify") in (False, "false", "False"):
        client["allow_invalid_certificates"] = True
    config: dict[str, Any] = {"virtual_hosted_style_request": False}
    if endpoint:
        config["endpoint"] = endpoint
    if _guards_content(endpoint) and "AWS_UNSIGNED_PAYLOAD" not in os.environ:
        config["unsigned_payload"] = True
    if extra.get("region_name"):
        config["region"] = str(extra["region_name"])
    provider = _s3_keys(connection)
    if provider is not None:
        config["credential_provider"] = provider
    if "region" not in config and (region := _default_region(provider)):
        config["region"] = region
    return S3Store(location.bucket, client_options=client, retry_config=_RETRY, **config)  # type: ignore[arg-type]  # TypedDicts


def _guards_content(endpoint: str) -> bool:
    """
    Say whether nobody can change what is sent on its way: TLS sees to that, or there is no way.

    Then a signature over every byte adds nothing but half of an upload's CPU seconds; the SDKs of AWS leave it out too.
    """
    where = urlsplit(endpoint)
    return where.scheme != "http" or where.hostname in _LOOPBACK


def _s3_keys(connection: Connection | None) -> Callable[[], Any] | None:
    """
    Choose where keys come from.

    Static keys go through a callback too: given as settings they would be mixed with a session token from the
    environment. None leaves it to the client: environment, web identity, container and instance roles.
    """
    if connection is None:
        if os.environ.get("AWS_ACCESS_KEY_ID") or importlib.util.find_spec("boto3") is None:
            return None
        return _SessionKeys.of_machine()
    extra = connection.extra
    if extra.get("role_arn") or extra.get("profile_name") or not connection.login:
        return _SessionKeys.of_connection(connection)
    keys = {
        "access_key_id": connection.login,
        "secret_access_key": connection.password,
        "token": extra.get("aws_session_token") or extra.get("session_token") or None,
        "expires_at": None,
    }
    return lambda: keys


def _default_region(provider: Callable[[], Any] | None) -> str:
    if isinstance(provider, _SessionKeys) and provider.region:
        return provider.region
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""


class _SessionKeys:
    """Keys of a boto3 session, asked for again before they run out; a role is assumed anew each time."""

    def __init__(self, session: Any, credentials: Any, role: Mapping[str, Any] | None = None) -> None:
        self._session, self._credentials, self._role = session, credentials, role
        self.region: str = session.region_name or ""

    @classmethod
    def of_machine(cls) -> _SessionKeys | None:
        """Use boto3's default chain; None where it finds nothing, and the client looks for itself."""
        import boto3

        session = boto3.session.Session()
        credentials = session.get_credentials()
        return cls(session, credentials) if credentials is not None else None

    @classmethod
    def of_connection(cls, connection: Connection) -> _SessionKeys:
        """Use the connection's keys or profile, and its role if it has one."""
        try:
            import boto3
        except ImportError as error:
            raise ConnectionInvalid(
                connection.conn_id,
                problem="a role, a profile or an empty login needs boto3",
                remedy="Install nightbatch[s3]",
            ) from error
        extra = connection.extra
        session = boto3.session.Session(
            aws_access_key_id=connection.login or None,
            aws_secret_access_key=connection.password or None,
            aws_session_token=extra.get("aws_session_token") or None,
            region_name=extra.get("region_name") or None,
            profile_name=extra.get("profile_name") or None,
        )
        credentials = session.get_credentials()
        if credentials is None:
            raise ConnectionInvalid(
                connection.conn_id,
                problem="it has no login, and this machine has no AWS credentials",
                remedy="Set login and password to an access key and its secret, or give the machine a role",
            )
        return cls(session, credentials, _role(extra))

    def __call__(self) -> dict[str, Any]:
        if self._role is not None:
            found = self._session.client("sts").assume_role(**self._role)["Credentials"]
            return {
                "access_key_id": found["AccessKeyId"],
                "secret_access_key": found["SecretAccessKey"],
                "token": found["SessionToken"],
                "expires_at": found["Expiration"],
            }
        frozen = self._credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            # Wall time, not the injected clock: it is compared with the client's own.
            "expires_at": datetime.now(UTC) + _KEYS_LIVE_FOR,
        }


def _role(extra: Mapping[str, Any]) -> dict[str, Any] | None:
    if not extra.get("role_arn"):
        return None
    role = {"RoleArn": extra["role_arn"], "RoleSessionName": "nightbatch", **_mapping(extra.get("assume_role_kwargs"))}
    if extra.get("external_id"):
        role["ExternalId"] = extra["external_id"]
    return role


# --- Google Cloud Storage and Azure: not run against the real services ----------------------------------------


def _open_gcs(location: Location, connection: Connection | None) -> Bucket:
    from obstore.store import GCSStore

    config: dict[str, Any] = {}
    if connection is not None:
        extra = connection.extra
        inline = extra.get("keyfile_dict") or extra.get("extra__google_cloud_platform__keyfile_dict")
        path = extra.get("key_path") or extra.get("extra__google_cloud_platform__key_path")
        if inline:
            config["service_account_key"] = inline if isinstance(inline, str) else json.dumps(dict(inline))
        elif path:
            config["service_account"] = str(path)
    return GCSStore(location.bucket, client_options=_TIMES, retry_config=_RETRY, **config)  # type: ignore[arg-type]  # TypedDicts


def _open_azure(location: Location, connection: Connection | None) -> Bucket:
    from obstore.store import AzureStore

    config: dict[str, Any] = {}
    if location.account:
        config["account_name"] = location.account
    if connection is not None:
        extra = connection.extra
        if extra.get("tenant_id"):
            config |= {"tenant_id": extra["tenant_id"], "client_id": connection.login}
            config["client_secret"] = connection.password
            config.setdefault("account_name", connection.host.removeprefix("https://").partition(".")[0])
        else:
            config.setdefault("account_name", connection.login)
            if connection.password:
                config["account_key"] = connection.password
        if extra.get("sas_token"):
            config["sas_token"] = str(extra["sas_token"]).removeprefix("?")
    return AzureStore(location.bucket, client_options=_TIMES, retry_config=_RETRY, **config)  # type: ignore[arg-type]  # TypedDicts


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
