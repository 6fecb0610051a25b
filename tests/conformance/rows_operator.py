"""Rows about pods, the operator itself, its chart and its upgrades. Layer: tests."""

from __future__ import annotations

from tests.conformance.row import (
    AGENT_LIFE,
    DOCUMENTS,
    LIFE,
    LIVE_API,
    OPERAND,
    OPERATOR_LIFE,
    PACKAGING,
    RECONCILE,
    VALUES,
    WORKLOAD,
    Row,
)

RUNNING = (
    Row(
        28,
        "Operand",
        "probes, requests and limits, rolling replacement, disruption budget",
        "rendered manifests",
        (OPERAND, "tests/unit/core/test_core_golden.py"),
    ),
    Row(
        29,
        "Operand",
        "Pod Security Standard restricted, read-only root",
        "pods in a namespace that enforces it",
        (
            f"{LIVE_API}::test_a_namespace_that_enforces_the_restricted_standard_admits_the_pods",
            "tests/unit/core/test_core_golden.py::test_every_pod_is_admitted_by_the_restricted_pod_security_standard",
        ),
    ),
    Row(
        30,
        "Operand",
        "whole devices, tolerations, selectors, spreading, priority",
        "the real scheduler and a node made up",
        (
            f"{LIVE_API}::test_the_scheduler_places_agents_by_devices_taints_and_labels",
            f"{OPERAND}::test_devices_are_whole_numbers",
            f"{OPERAND}::test_replicas_spread_over_nodes_where_they_can",
            f"{OPERAND}::test_selector_affinity_and_priority_are_the_users",
            f"{AGENT_LIFE}::test_the_pod_got_a_gpu_from_the_kubelet_and_says_it_computes_on_the_cpu",
        ),
    ),
    Row(
        31,
        "Operand",
        "overrides of the pod template, merged by key",
        "the API server takes the merged template",
        (
            f"{LIVE_API}::test_overrides_of_the_pod_template_are_merged_by_key_and_accepted",
            "tests/unit/core/test_core_template.py",
        ),
    ),
    Row(
        32,
        "Operator runtime",
        "election by a Lease of 15/10/2 s, released on exit, two replicas and a budget",
        "faults of the leader; who wrote when",
        (
            "tests/unit/controller/test_leader.py",
            f"{OPERATOR_LIFE}::test_a_killed_leader_is_replaced_and_the_new_one_works",
            "tests/fault_cluster/test_leader_faults.py",
            f"{WORKLOAD}::test_two_replicas_elect_a_leader_and_are_replaced_without_a_gap",
        ),
    ),
    Row(
        33,
        "Operator runtime",
        "/healthz and /readyz, a standby is ready, a graceful stop within 30 s",
        "two processes",
        (
            f"{LIFE}::test_a_standby_is_ready_and_takes_over_when_the_leader_ends",
            f"{LIFE}::test_the_operators_endpoints_answer",
            "tests/unit/observability/test_probes.py",
            "tests/unit/controller/test_manager.py",
        ),
    ),
    Row(
        34,
        "Operator runtime",
        "metrics under the names operators have by custom",
        "golden list",
        (
            "tests/conformance/test_observability.py",
            "tests/unit/observability/test_metrics.py",
            f"{OPERATOR_LIFE}::test_every_metric_promised_is_served",
        ),
    ),
    Row(
        35,
        "Operator runtime",
        "metrics can be closed off and scraped",
        "toggles of the chart",
        (
            f"{WORKLOAD}::test_the_service_monitor_selects_the_metrics_service_by_its_port",
            f"{WORKLOAD}::test_the_pod_monitor_selects_the_pods_of_agents_by_the_port_of_their_metrics",
            f"{WORKLOAD}::test_the_network_policy_lets_in_only_the_scraper_and_the_install_check",
        ),
        "no PrometheusRule, Grafana dashboard or runbooks yet",
    ),
    Row(
        36,
        "Operator runtime",
        "structured logs with object, generation and reconcile",
        "every line of a real process",
        (
            f"{LIFE}::test_every_line_it_ever_logged_is_json_of_the_published_fields",
            "tests/unit/observability/test_logging.py",
        ),
    ),
    Row(
        37,
        "Operator runtime",
        "least privilege, a mode for named namespaces",
        "kubectl auth can-i --list, as reviewed",
        (
            "tests/conformance/cluster/test_permissions.py",
            "tests/chart/test_permissions.py",
            "tests/chart/test_api_server.py",
        ),
    ),
    Row(
        38,
        "Operator runtime",
        "settings by flag and environment, checked at the start, documented",
        "each message",
        (
            "tests/unit/controller/test_settings.py",
            f"{WORKLOAD}::test_the_operator_accepts_what_the_chart_tells_it",
        ),
        "no configuration file: a flag and a variable for each setting are enough",
    ),
    Row(
        39,
        "Operator runtime",
        "slim image, not root, what it installs pinned by hash",
        "the Dockerfiles",
        (
            f"{PACKAGING}::test_an_image_is_slim_and_runs_as_a_numbered_user_that_is_not_root",
            f"{PACKAGING}::test_what_an_image_installs_is_pinned_by_hash",
            f"{PACKAGING}::test_no_secret_or_build_setting_stays_in_an_image",
        ),
        "no image is published: no SBOM, signature, second architecture or base pinned by digest yet",
    ),
)

DELIVERING = (
    Row(
        40,
        "Chart",
        "schema of values, generated README, notes, test hook, lint",
        "helm itself",
        (
            VALUES,
            f"{WORKLOAD}::test_the_install_check_runs_the_committed_script_as_a_test_hook",
            f"{OPERATOR_LIFE}::test_helm_test_passes",
        ),
    ),
    Row(
        41,
        "Chart",
        "the CRD is upgraded with the release and outlives it",
        "rendered objects",
        ("tests/chart/test_crd.py",),
        "nothing was released yet, so there is no earlier chart to upgrade from",
    ),
    Row(
        42,
        "Chart",
        "kubeVersion and the annotations of Artifact Hub",
        "each is read as the catalogue does",
        (
            f"{PACKAGING}::test_the_package_page_lists_the_resources_that_the_crd_serves",
            f"{PACKAGING}::test_the_package_page_tells_licence_level_changes_and_the_kubernetes_it_needs",
            f"{VALUES}::test_the_package_page_names_the_charts_images",
            f"{VALUES}::test_the_example_of_the_package_page_is_a_supported_agent",
            f"{VALUES}::test_an_older_kubernetes_is_refused",
        ),
        "no signKey: the chart is not signed yet",
    ),
    Row(
        43,
        "Chart",
        "budget, NetworkPolicy, placement, extra environment and arguments, registries",
        "rendered objects",
        (WORKLOAD, f"{VALUES}::test_every_value_is_used_by_a_template"),
    ),
    Row(
        44,
        "Chart",
        "OLM bundle",
        "",
        (),
        "optional, and later: the chart is the one way to install until then",
    ),
    Row(
        45,
        "Process",
        "an upgrade restarts no pod",
        "objects of an earlier operator under this one",
        (
            "tests/conformance/cluster/test_upgrade.py",
            "tests/unit/core/test_core_upgrade.py",
            f"{RECONCILE}::test_a_new_rendering_of_the_pod_restarts_nothing",
        ),
    ),
    Row(
        46,
        "Process",
        "a capability level claimed with evidence",
        "every claim names a test or page that exists",
        (
            f"{DOCUMENTS}::test_every_guiding_question_has_evidence_that_exists_or_says_what_is_missing",
            f"{DOCUMENTS}::test_the_level_the_chart_claims_is_the_one_the_table_reaches",
        ),
        "auto-scaling, tuning and remediation (level 5) are not built; alerts (level 4) neither",
    ),
)
