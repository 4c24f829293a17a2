"""Who is calling. One `Authenticator` an `AUTH_MODE`; each turns a request's headers into a `Principal`."""

from gateway.identity.headers import HeaderAuthenticator
from gateway.identity.principal import Authenticator, Principal, Unauthenticated

__all__ = ["Authenticator", "HeaderAuthenticator", "Principal", "Unauthenticated"]
