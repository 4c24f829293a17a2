"""What the documents show and no reader pastes in a test: where it is carried out instead, or why it cannot be here."""

from __future__ import annotations

import re
from typing import Final

from tests.support.document_text import Block

_OPERATIONS: Final = "tests/e2e/test_documented_operations.py"
_ENVIRONMENT: Final = re.compile(r"(?:[A-Z_]+=\S+\n)+")
_UPGRADE: Final = "tests/e2e/test_binary_upgrade.py"

BLOCKS: Final = {
    # First line, without its comment: the test.
    "make run": "tests/e2e/test_readme.py::test_every_request_pasted_gives_the_answer_printed_under_it",
    "pip install beamline-gateway": f"{_OPERATIONS}::test_a_gateway_is_run_for_real_as_the_readme_says",
    "beamline-gateway backup /backups/2030-01-31": f"{_OPERATIONS}::test_a_backup_is_restored_as_the_guide_says",
    "beamline-gateway smoke --header 'X-Tenant-ID: checks' --header 'X-Role: service'"
    " --tenant-header 'X-Tenant-ID: checks-2'": f"{_OPERATIONS}::test_a_proxys_headers_are_enough_for_smoke",
    "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 OTEL_BSP_SCHEDULE_DELAY=200 beamline-gateway serve &":
        f"{_OPERATIONS}::test_a_gateway_sends_its_traces_to_smoke_before_it_serves",
    "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317 OTEL_EXPORTER_OTLP_PROTOCOL=grpc"
    " OTEL_BSP_SCHEDULE_DELAY=200 beamline-gateway serve &":
        f"{_OPERATIONS}::test_a_gateway_sends_its_traces_to_smoke_before_it_serves",
    "CAF_RESULT_SUBJECT='caf.exec.result.*' NATS_SUBJECT_ALLOWLIST=caf.exec.result.v1,caf.exec.result.v2 \\":
        "tests/unit/docs/test_all_documents.py::test_the_command_of_the_page_of_subjects_does_what_it_says",
    "make deploy-check": "tests/deploy/test_schemas.py",
    "#!/usr/bin/env bash": "tests/clients/test_examples.py",
}  # fmt: skip

COMMANDS: Final = {
    # As it is written: the test that does it, or the reason.
    "beamline-gateway serve": "tests/e2e/test_shutdown.py::test_idle_gateway_ends_quickly",
    "beamline-gateway dev": "tests/e2e/test_readme.py::test_the_two_commands_lead",
    "beamline-gateway docs": "tests/unit/docs/test_generated_documents.py::test_the_command_mends_what_the_check_found",
    "beamline-gateway dlq replay": "a name: which letters is said behind it",
    "beamline-gateway restore FOLDER": f"{_OPERATIONS}::test_a_backup_is_restored_as_the_guide_says",
    "beamline-gateway restore --check FOLDER": f"{_OPERATIONS}::test_a_backup_is_restored_as_the_guide_says",
    "curl http://INSTANCE/livez": f"{_OPERATIONS}::test_the_probe_of_an_instance_is_answered",
    "curl --retry": "what clients should not do",
    "javac Beamline.java Example.java": "tests/clients/programs.py",
    "kill -USR2": f"{_UPGRADE}::test_a_new_master_takes_over_and_no_request_is_lost",
    "kill -TERM": f"{_UPGRADE}::test_an_upgrade_can_be_taken_back",
    "nats-server --signal ldm": f"{_OPERATIONS}::test_a_node_of_nats_goes_as_the_guide_says",
    "connected to NATS": "a line of the log",
    "docker stop": "no engine here; SIGTERM: tests/e2e/test_shutdown.py::test_idle_gateway_ends_quickly",
    "up -d --no-deps --build gateway-a": "no engine here; its services are looked up",
    "docker compose exec front nginx -s reload": "no engine here; its service is looked up",
    "nginx -s reload": "of a front that serves; tests/deploy/test_nginx.py loads its configuration",
    "kubectl apply -k": "no cluster here; tests/deploy/test_schemas.py validates the manifests",
    "kubectl -n beamline set image deployment/beamline-gateway gateway=…": "no cluster here; its names are looked up",
    "kubectl rollout undo": "no cluster here",
    "kubectl -n beamline get pods": "no cluster here; its namespace is looked up",
    "journalctl -u beamline-gateway": "no such unit runs here; its name is looked up",
    "py-spy dump --pid …": "another program, which is not ours",
    "nats stream edit": "NATS' own client, which is not here",
    "nats stream edit BEAMLINE_USAGE --dupe-window 6h": "NATS' own client, which is not here; its stream is looked up",
    "nats stream edit BEAMLINE_USAGE --max-bytes 8GB": "NATS' own client, which is not here; its stream is looked up",
    "nats stream purge BEAMLINE_USAGE --seq N": "NATS' own client, which is not here; its stream is looked up",
    "nats consumer ls BEAMLINE_EXEC": "NATS' own client, which is not here; its stream is looked up",
    "nats server report jetstream": "NATS' own client, which is not here",
    "nats server report connections": "NATS' own client, which is not here",
    "nats server passwd": "NATS' own client, which is not here",
    "nats kv": "NATS' own client, which is not here",
}  # fmt: skip


def known_by(block: Block) -> str:
    """What `BLOCKS` knows a block by."""
    first = block.first_line
    return first if first.startswith("#") else first.partition("   ")[0].strip()


def is_environment(block: Block) -> bool:
    """Whether it holds variables only: test_documented_operations.py starts what they are for."""
    return _ENVIRONMENT.fullmatch(block.text) is not None


def carried_out_elsewhere(block: Block) -> bool:
    """Whether another test than the one for all does it."""
    return known_by(block) in BLOCKS or is_environment(block)
