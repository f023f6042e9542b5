"""The HTTP door: HTTP/1.1 by llhttp's parser on uvloop's transports, on the service's own event loop."""
