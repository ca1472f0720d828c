"""A sender that knows an address and a token, and learns everything else by server reflection.

usage: reflection.py TARGET ERP TABLE BATCH   (the token comes on stdin)
"""

import sys

from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import client
from client import bearer, check

SERVICE = "com.totvs.ingestion.grpc.TableStream"


class Discovered:
    """Calls a method by name with whatever messages the server says it has."""

    def __init__(self, channel, service, token):
        self.channel, self.service, self.metadata = channel, service, bearer(token)

    def message(self, method):
        return message_factory.GetMessageClass(self.service.methods_by_name[method].input_type)()

    def call(self, method, request):
        found = self.service.methods_by_name[method]
        answer = message_factory.GetMessageClass(found.output_type)
        path = f"/{self.service.full_name}/{method}"
        unary = self.channel.unary_unary(path, lambda message: message.SerializeToString(), answer.FromString)
        return unary(request, metadata=self.metadata, timeout=30)


def main():
    target, erp, table, batch = sys.argv[1:5]
    token = sys.stdin.read().strip()
    with client.channel(target) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        services = database.get_services()
        for expected in (SERVICE, "malote.ingestion.v1.Session", "grpc.health.v1.Health"):
            check(expected in services, f"reflection lists {expected}", services)
        pool = descriptor_pool.DescriptorPool(database)
        stream = Discovered(channel, pool.FindServiceByName(SERVICE), token)

        write = stream.message("Write")
        write.tableName, write.erp, write.batchId, write.messageNumber, write.recordCount = table, erp, int(batch), 1, 1
        write.schema.flexible = True
        write.schema.primaryKey.name = table
        write.schema.primaryKey.columns.append("ID")
        for name, kind, value in (("ID", "long", "77"), ("NAME", "string", "found by reflection")):
            column = write.schema.columns.add()
            column.name, column.type = name, kind
        row = write.rows.add()
        for name, value in (("ID", "77"), ("NAME", "found by reflection")):
            cell = row.columns.add()
            cell.name, cell.value = name, value
        answer = stream.call("Write", write)
        check(answer.success, "a discovered Write is accepted", answer)

        summary = stream.message("Summary")
        summary.erp, summary.batchId, summary.messageCount, summary.recordCount = erp, int(batch), 1, 1
        answer = stream.call("Summary", summary)
        check(answer.success, "a discovered Summary is accepted", answer)

        health = Discovered(channel, pool.FindServiceByName("grpc.health.v1.Health"), token)
        check(health.call("Check", health.message("Check")).status == 1, "the server says it is serving")


client.run(main)
