"""A gRPC health server, of Google's own library: grpc_health.py PORT FOLDER [CERT KEY]. FOLDER has health_pb2.py, and a file
"status" that says what to answer: "SERVING", "UNKNOWN", ..., "abort NOT_FOUND text", "hang", "none" (no such service at all)."""

import sys
import time
from concurrent import futures
from pathlib import Path

import grpc

port, folder = sys.argv[1], Path(sys.argv[2])
sys.path.insert(0, str(folder))
import health_pb2 as pb  # noqa: E402


def check(request, context):
    word, *rest = (folder / "status").read_text().split(None, 2)
    print(f"asked for {request.service!r}", flush=True)
    if word == "hang":
        time.sleep(5)
    if word == "abort":
        context.abort(getattr(grpc.StatusCode, rest[0]), rest[1])
    return pb.HealthCheckResponse(status=pb.HealthCheckResponse.ServingStatus.Value(word))


server = grpc.server(futures.ThreadPoolExecutor(4))
if (folder / "status").read_text().strip() != "none":
    handler = grpc.unary_unary_rpc_method_handler(check, request_deserializer=pb.HealthCheckRequest.FromString,
                                                  response_serializer=pb.HealthCheckResponse.SerializeToString)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler})])
if len(sys.argv) > 3:
    cert, key = (Path(p).read_bytes() for p in sys.argv[3:5])
    assert server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([(key, cert)]))
else:
    assert server.add_insecure_port(f"127.0.0.1:{port}")
server.start()
print("serving", flush=True)
server.wait_for_termination()
