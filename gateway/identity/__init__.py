"""Who is calling. One `Authenticator` an `AUTH_MODE`; each turns a request's headers into a `Principal`."""

from gateway.identity.api_keys import ApiKeyAuthenticator
from gateway.identity.headers import HeaderAuthenticator
from gateway.identity.principal import Authenticator, Principal, Unauthenticated
from gateway.identity.tokens import JwtAuthenticator

__all__ = [
    "ApiKeyAuthenticator",
    "Authenticator",
    "HeaderAuthenticator",
    "JwtAuthenticator",
    "Principal",
    "Unauthenticated",
]
