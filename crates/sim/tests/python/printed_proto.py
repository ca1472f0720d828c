"""A sender made from the proto as document 001 prints it, and from nothing else of Malote's.

usage: printed_proto.py TARGET ERP TABLE FIRST_BATCH   (the token comes on stdin)
"""

import atexit
import pathlib
import sys
import tempfile

import grpc
from grpc_tools import protoc

import client
from client import bearer, check


def compile_printed():
    """Compiles the printed text into a folder of its own and imports it."""
    import grpc_tools

    kept = tempfile.TemporaryDirectory(prefix="malote-proto-")
    atexit.register(kept.cleanup)
    folder = kept.name
    here = pathlib.Path(__file__).parent
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    failed = protoc.main(
        ["protoc", f"-I{here}", f"-I{well_known}", f"--python_out={folder}", f"--grpc_python_out={folder}", "document_001.proto"]
    )
    check(failed == 0, "the proto as printed in document 001 compiles")
    sys.path.insert(0, folder)
    import document_001_pb2
    import document_001_pb2_grpc

    return document_001_pb2, document_001_pb2_grpc


class Sender:
    def __init__(self, pb, stub, token, erp, table):
        self.pb, self.stub, self.metadata, self.erp, self.table = pb, stub, bearer(token), erp, table

    def message(self, batch, number, rows, base_load=False):
        """A table message of (id, name) rows; a row of one value is a delete."""
        pb = self.pb
        table = pb.Table(tableName=self.table, erp=self.erp, batchId=batch, messageNumber=number)
        table.recordCount, table.isBaseLoad = len(rows), base_load
        table.schema.flexible = True
        table.schema.exportData = True
        table.schema.columns.add(name="ID", type="long")
        table.schema.columns.add(name="NAME", type="string")
        table.schema.primaryKey.name = self.table
        table.schema.primaryKey.columns.append("ID")
        for row in rows:
            columns = table.rows.add().columns
            columns.add(name="ID", value=str(row[0]))
            if len(row) > 1:
                columns.add(name="NAME", value=row[1])
            else:
                columns.add(name="DELETED", value="true")
        return table

    def write(self, message, **options):
        return self.stub.Write(message, metadata=self.metadata, timeout=30, **options)

    def summary(self, batch, messages, records, **options):
        summary = self.pb.BatchSummary(erp=self.erp, batchId=batch, messageCount=messages, recordCount=records)
        summary.timestampStart.FromSeconds(batch)
        summary.timestampEnd.FromSeconds(batch + 5)
        return self.stub.Summary(summary, metadata=self.metadata, timeout=30, **options)


def refused(answer, code):
    return not answer.success and any(error.startswith(code) for error in answer.errors)


def sized(sender, batch, number, size):
    """A message whose encoding has exactly `size` bytes."""
    message = sender.message(batch, number, [(900, "")])
    length = size
    while True:
        message.rows[0].columns[1].value = "x" * length
        over = message.ByteSize() - size
        if over == 0:
            return message
        check(abs(over) < size, "the size of a message can be aimed at", over)
        length -= over


def the_batch(sender, batch):
    first = sender.message(batch, 1, [(1, "Ação"), (2, "")], base_load=True)
    second = sender.message(batch, 2, [(1,), (3, "três")])
    answer = sender.write(first)
    check(answer.success and not answer.errors, "message 1 is accepted", answer)
    check(sender.write(first).success, "the same bytes again are accepted")
    other = sender.write(sender.message(batch, 1, [(1, "other")]))
    check(refused(other, "MESSAGE_CONFLICT"), "other content under the number is refused", other)
    lie = sender.message(batch, 2, [(3, "x")])
    lie.recordCount = 7
    check(refused(sender.write(lie), "RECORD_COUNT_MISMATCH"), "a wrong recordCount is refused")
    keyless = sender.message(batch, 2, [(3, "x")])
    del keyless.rows[0].columns[0]
    check(refused(sender.write(keyless), "MISSING_KEY_COLUMN"), "a row without its key is refused")
    gap = sender.write(sender.message(batch, 3, [(4, "x")]))
    check(refused(gap, "SEQUENCE_GAP"), "a gap is refused", gap)
    check("2" in gap.errors[0], "the gap names the expected number", gap)
    check(sender.write(second, compression=grpc.Compression.Gzip).success, "message 2 is accepted, with gzip")
    missing = sender.summary(batch, 3, 5)
    check(refused(missing, "MESSAGES_MISSING"), "a summary of too many messages is refused", missing)
    wrong = sender.summary(batch, 2, 5)
    check(refused(wrong, "SUMMARY_MISMATCH"), "a summary of wrong counts is refused", wrong)
    check(sender.summary(batch, 2, 4, compression=grpc.Compression.Gzip).success, "the right summary is accepted")
    check(sender.summary(batch, 2, 4).success, "the same summary again is accepted")
    check(refused(sender.summary(batch, 2, 3), "MESSAGE_CONFLICT"), "another summary is refused")
    closed = sender.write(sender.message(batch, 3, [(5, "late")]))
    check(refused(closed, "BATCH_CLOSED"), "a complete batch takes no more", closed)
    check(sender.write(first).success, "an exact repeat is still answered as before")
    unknown = sender.write(sender.message(batch - 1, 1, [(6, "old")]))
    check(refused(unknown, "BATCH_UNKNOWN"), "an id below the last one is refused", unknown)
    ahead = sender.write(sender.message(batch + 30 * 86400, 1, [(6, "new")]))
    check(refused(ahead, "CLOCK_AHEAD"), "an id a month ahead is refused", ahead)


def the_limits(sender, batch):
    whole = sized(sender, batch, 1, client.LIMIT)
    check(whole.ByteSize() == 5_242_880, "the largest message has 5,242,880 bytes", whole.ByteSize())
    check(sender.write(whole).success, "5,242,880 encoded bytes are accepted")
    over = sized(sender, batch, 2, client.LIMIT + 1)
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        code, words = client.status_of(lambda: sender.write(over, compression=compression))
        too_large = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OUT_OF_RANGE)
        check(code in too_large, "one byte more is refused as too large", (code, words))
    again = sender.write(sender.message(batch, 2, [(900,)]))
    check(again.success, "the refused message did not use up its number", again)
    check(sender.summary(batch, 2, 2).success, "its summary is accepted")


def the_door(sender, batch):
    message = sender.message(batch, 1, [(1, "x")])
    code, words = client.status_of(lambda: sender.stub.Write(message, timeout=30))
    check(code == grpc.StatusCode.UNAUTHENTICATED, "no token, no entry", (code, words))
    wrong = bearer("eyJhbGciOiJub25lIn0.eyJhIjoxfQ.")
    code, words = client.status_of(lambda: sender.stub.Write(message, metadata=wrong, timeout=30))
    check(code == grpc.StatusCode.UNAUTHENTICATED, "a token without signature is refused", (code, words))
    stranger = Sender(sender.pb, sender.stub, "", "OTHER", sender.table)
    stranger.metadata = sender.metadata
    code, words = client.status_of(lambda: stranger.write(stranger.message(batch, 1, [(1, "x")])))
    check(code == grpc.StatusCode.PERMISSION_DENIED, "another ERP than the credential's is refused", (code, words))
    unlisted = Sender(sender.pb, sender.stub, "", sender.erp, "NOT_SHARED")
    unlisted.metadata = sender.metadata
    code, words = client.status_of(lambda: unlisted.write(unlisted.message(batch, 1, [(1, "x")])))
    check(code == grpc.StatusCode.PERMISSION_DENIED, "a table nobody shared is refused", (code, words))


def main():
    target, erp, table, first_batch = sys.argv[1:5]
    token = sys.stdin.read().strip()
    pb, pb_grpc = compile_printed()
    with client.channel(target) as channel:
        sender = Sender(pb, pb_grpc.TableStreamStub(channel), token, erp, table)
        batch = int(first_batch)
        the_door(sender, batch)
        the_batch(sender, batch)
        the_limits(sender, batch + 1)


client.run(main)
