"""Checks settings against each other: contradictions, settings without effect, and nearly right names.

`ostler.settings.declarations` checks each setting alone; this module checks what needs more than one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ostler.errors import SettingsError
from ostler.settings.declarations import DEFAULT, Settings, declarations, variables
from ostler.settings.kinds import OWN_LOG_CONFIG

# These say where to find files, or tell a process its part; they are no settings.
_OTHER_VARIABLES = (
    *("OSTLER_CONFIG", "OSTLER_ENV_FILE"),
    *("OSTLER_SLOT", "OSTLER_GENERATION", "OSTLER_HANDOVER"),
)

_NEED_CERTIFICATE = (
    "ssl_keyfile",
    "ssl_keyfile_password",
    "ssl_version",
    "ssl_cert_reqs",
    "ssl_ca_certs",
    "ssl_ciphers",
)


def refuse_contradictions(settings: Settings, origins: Mapping[str, str]) -> None:
    """Refuse settings that are right one by one and contradict each other.

    Args:
        settings: the effective settings.
        origins: where each of them came from, by field name, as `Configuration.origins`.

    Raises:
        SettingsError: the first contradiction, with the origins of both settings.
    """
    if settings.http2:
        raise SettingsError(
            f"http2 from {origins['http2']}: ostler does not speak HTTP/2 yet; without this setting, clients "
            "are served HTTP/1.1"
        )
    _refuse_star_among_peers(settings, origins)
    if settings.log_config not in (None, OWN_LOG_CONFIG) and settings.log_format != "text":
        raise SettingsError(
            f"log_config from {origins['log_config']} and log_format from {origins['log_format']} exclude "
            f"each other: expected the formatter ostler.logging.JsonFormatter in the file instead"
        )
    _refuse_incomplete_tls(settings, origins)


def warnings(settings: Settings, origins: Mapping[str, str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return what is not wrong but probably not meant, one line each."""
    return (
        *_near_misses(environ),
        *_uvicorns_variables(environ),
        *_jitter_without_effect(settings, origins),
        *_log_format_without_effect(settings, origins),
        *_reload_settings_without_effect(settings, origins),
        *_authorities_without_effect(settings, origins),
    )


def suggestion(word: str, known: Sequence[str], likeness: float = 0.7) -> str:
    """Return the part of a message that suggests the name most like `word`; "" if none is like it.

    Args:
        word: the unknown name.
        known: the names that exist.
        likeness: how much they must have in common, from 0 to 1 (difflib.SequenceMatcher.ratio()).
    """
    import difflib  # 1.5 MB, which only a mistake needs

    close = difflib.get_close_matches(word.replace("-", "_"), known, n=1, cutoff=likeness)
    return f", did you mean {close[0]}?" if close else ""


def _refuse_incomplete_tls(settings: Settings, origins: Mapping[str, str]) -> None:
    """Refuse a part of the TLS settings that would end in plain HTTP, or in a check that checks nothing."""
    if settings.ssl_context_factory is None:
        for name in _NEED_CERTIFICATE:
            if origins[name] != DEFAULT and settings.ssl_certfile is None:
                raise SettingsError(
                    f"{name} is given by {origins[name]}: expected ssl_certfile with it, for TLS needs a "
                    "certificate"
                )
        if settings.ssl_cert_reqs != "none" and settings.ssl_ca_certs is None:
            raise SettingsError(
                f"ssl_cert_reqs from {origins['ssl_cert_reqs']} is {settings.ssl_cert_reqs}: expected "
                "ssl_ca_certs with it, to check the certificates of clients against"
            )
    elif callable(settings.ssl_context_factory) and (settings.workers is not None or settings.reload):
        raise SettingsError(
            f"ssl_context_factory from {origins['ssl_context_factory']} is "
            f"{settings.ssl_context_factory!r}: expected a function at the top level of a module, the script "
            "itself excepted, as every worker imports it"
        )


def _refuse_star_among_peers(settings: Settings, origins: Mapping[str, str]) -> None:
    """Refuse `*` beside other peers.

    uvicorn ignores a `*` there. Taken as "everyone", it would trust more peers than uvicorn does. With the
    PROXY protocol it has a meaning: every peer may send the header, which may name the others as the client.
    """
    entries = {entry.strip() for entry in settings.forwarded_allow_ips.split(",")} - {""}
    if "*" in entries and len(entries) > 1 and not settings.proxy_protocol:
        raise SettingsError(
            f"forwarded_allow_ips from {origins['forwarded_allow_ips']} is {settings.forwarded_allow_ips!r}: "
            "* trusts everyone, so expected * alone, or the others without it"
        )


def _near_misses(environ: Mapping[str, str]) -> list[str]:
    """Warn of variables that are named almost like ours; any other OSTLER_ name may be another program's."""
    unknown = [name for name in environ if name.startswith("OSTLER_") and name not in _OTHER_VARIABLES]
    known = {variable for name in declarations() for variable in variables(name)}
    found = []
    for name in unknown:
        # Strict: a Kubernetes service named ostler gives every pod an OSTLER_SERVICE_HOST.
        meant = "" if name in known else suggestion(name, sorted(known), 0.85)
        if meant:
            found.append(f"variable {name} is ignored: unknown setting{meant}")
    return found


def _uvicorns_variables(environ: Mapping[str, str]) -> list[str]:
    """Warn of uvicorn's variables: an image that sets UVICORN_PORT would be served on another port."""
    known = {variable for name in declarations() for variable in variables(name)}
    found = []
    for name in environ:
        if not name.startswith("UVICORN_") or not environ[name]:
            continue
        plain = "OSTLER_" + name.removeprefix("UVICORN_")
        for meant in (plain, plain.removesuffix("S")):  # UVICORN_RELOAD_DIRS
            if meant in known:
                found += [] if meant in environ else [f"variable {name} is ignored: expected {meant}"]
                break
    return found


def _jitter_without_effect(settings: Settings, origins: Mapping[str, str]) -> list[str]:
    limits = ("limit_max_requests", "limit_worker_lifetime")
    return [
        f"{limit}_jitter from {origins[f'{limit}_jitter']} does nothing without {limit}"
        for limit in limits
        if getattr(settings, f"{limit}_jitter") and getattr(settings, limit) is None
    ]


def _log_format_without_effect(settings: Settings, origins: Mapping[str, str]) -> list[str]:
    if settings.log_config is not None or settings.log_format == "text":
        return []
    return [f"log_format from {origins['log_format']} does nothing: log_config=None leaves logging alone"]


def _reload_settings_without_effect(settings: Settings, origins: Mapping[str, str]) -> list[str]:
    given = [name for name in origins if name.startswith("reload_") and origins[name] != DEFAULT]
    if settings.reload or not given:
        return []
    return [f"{name} from {origins[name]} does nothing without --reload" for name in given]


def _authorities_without_effect(settings: Settings, origins: Mapping[str, str]) -> list[str]:
    if settings.ssl_ca_certs is None or settings.ssl_cert_reqs != "none" or settings.ssl_context_factory:
        return []
    origin = origins["ssl_ca_certs"]
    return [f"ssl_ca_certs from {origin} checks nobody: ssl_cert_reqs is none, so no client is asked"]
