"""What the clients share: a channel, the token in the metadata, and checks that say what they saw."""

import sys

import grpc

LIMIT = 5 * 1024 * 1024


class Failed(Exception):
    """A check did not hold."""


def check(holds, what, seen=None):
    """Counts a check; the words are for whoever reads the test's output."""
    if not holds:
        raise Failed(f"{what}; seen: {seen!r}")
    print(f"ok   {what}", file=sys.stderr)


def channel(target):
    """A channel that may send more than the contract allows, so that the server is the one who refuses."""
    unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    return grpc.insecure_channel(target, options=unlimited)


def bearer(token):
    return (("authorization", f"Bearer {token}"),)


def status_of(call):
    """The status and words of a call that must fail."""
    try:
        answer = call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise Failed(f"the call was to fail and answered {answer!r}")


def run(main):
    try:
        main()
    except Failed as failed:
        print(f"FAIL {failed}", file=sys.stderr)
        sys.exit(1)
    except grpc.RpcError as error:
        print(f"FAIL {error.code()}: {error.details()}", file=sys.stderr)
        sys.exit(1)
    print("all held")
