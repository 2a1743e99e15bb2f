"""Every bound has a name, a default that makes sense, and a test that hits it."""

from __future__ import annotations

import dataclasses
import importlib
import math
from typing import Any

import pytest

from pie_proto.limits import DEFAULT_LIMITS, Limits

HIT_BY = {
    "unread_bytes": "test_core_flow_control.test_reading_pauses_at_the_mark_and_decodes_no_further",
    "unread_low_bytes": "test_core_flow_control.test_reading_resumes_at_the_low_mark_and_goes_on",
    "event_cost_bytes": "test_core_flow_control.test_empty_events_count_too",
    "held_bytes": "test_core_flow_control.test_events_held_for_instances_not_yet_known_are_bounded",
    "message_bytes": "test_core_closing.test_a_message_over_the_bound_is_refused_with_its_code",
    "blob_bytes": "test_core_flow_control.test_one_blob_is_bounded",
    "assembling_bytes": "test_core_flow_control.test_all_blobs_being_put_together_are_bounded",
    "unsent_bytes": "test_core_flow_control.test_writing_pauses_when_too_much_is_unsent",
    "pending_requests": "test_core_flow_control.test_requests_under_way_are_bounded",
    "write_bytes": "test_core_closing.test_no_more_bytes_are_made_than_asked_for",
    "upload_bytes": "test_core_server.test_an_upload_over_the_bound_is_refused",
    "handshake_body_bytes": "test_core_closing.test_of_an_http_answer_only_the_start_is_kept",
    "read_ahead_bytes": "test_core_flow_control.test_what_is_received_ahead_is_bounded",
    "request_timeout": "test_core_timeouts.test_a_request_times_out_by_its_kind",
    "launch_timeout": "test_core_timeouts.test_a_request_times_out_by_its_kind",
    "handshake_body_timeout": (
        "test_core_closing.test_the_body_of_a_rejection_is_waited_for_but_not_for_long"
    ),
    "request_grace": (
        "test_core_flow_control."
        "test_a_request_behind_unread_events_fails_after_the_grace_and_names_the_instance"
    ),
    "handshake_timeout": "test_core_closing.test_a_handshake_that_is_not_answered_times_out",
    "authentication_timeout": (
        "test_core_authentication.test_a_server_that_says_nothing_to_who_one_is_is_given_up"
    ),
    "close_timeout": "test_core_closing.test_a_deaf_peer_is_given_up_after_the_close_timeout",
    "keepalive_interval": "test_core_closing.test_after_silence_a_ping_is_sent_and_answered",
    "keepalive_timeout": "test_core_closing.test_silence_after_the_ping_ends_the_connection",
}


def test_every_bound_is_hit_by_a_test() -> None:
    assert set(HIT_BY) == {item.name for item in dataclasses.fields(Limits)}
    for where in HIT_BY.values():
        module, name = where.split(".")
        assert callable(getattr(importlib.import_module(f"tests.proto.{module}"), name))


@pytest.mark.parametrize("name", list(HIT_BY))
@pytest.mark.parametrize("value", [0, -1, math.nan, "1", True])
def test_a_bound_that_is_no_positive_number_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a number above 0"):
        Limits(**{name: value})


def test_bounds_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="must not be above unread_bytes"):
        Limits(unread_bytes=10, unread_low_bytes=11)


OPTIONAL = {"keepalive_interval", "request_timeout", "launch_timeout"}


@pytest.mark.parametrize("name", list(HIT_BY))
def test_only_bounds_that_can_be_turned_off_may_be_none(name: str) -> None:
    if name in OPTIONAL:
        assert getattr(Limits(**{name: None}), name) is None
    else:
        with pytest.raises(ValueError, match=f"{name} must be a number above 0, not None"):
            Limits(**{name: None})


def test_the_default_limits_are_those_of_limits_without_arguments() -> None:
    assert Limits() == DEFAULT_LIMITS


def test_a_received_blob_is_bounded_by_256_mib() -> None:
    assert DEFAULT_LIMITS.blob_bytes == 256 * 1024 * 1024
