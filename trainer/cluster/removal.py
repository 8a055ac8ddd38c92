"""Deleting a run from the cluster: its Job or MPIJob with their pods, and its ConfigMap. Never its output."""

from __future__ import annotations

from kubernetes.client.exceptions import ApiException

from trainer.cluster import runs
from trainer.cluster.api import GROUP, MPIJOBS, TIMEOUT_SECONDS, VERSION, Cluster, asked
from trainer.cluster.facts import Run


def delete(cluster: Cluster, run: Run) -> None:
    """A ConfigMap that another run uses as well stays. Raises ClusterError, ConfigError."""
    shared = any(
        other.settings_name == run.settings_name
        for other in runs.all_runs(cluster)
        if (other.kind, other.name) != (run.kind, run.name)
    )
    given = {"propagation_policy": "Background", "_request_timeout": TIMEOUT_SECONDS}
    with asked():
        if run.kind == "MPIJob":
            cluster.custom.delete_namespaced_custom_object(
                GROUP, VERSION, cluster.namespace, MPIJOBS, run.name, **given
            )
        else:
            cluster.batch.delete_namespaced_job(run.name, cluster.namespace, **given)
        if run.settings_name and not shared:
            try:
                cluster.core.delete_namespaced_config_map(run.settings_name, cluster.namespace, **given)
            except ApiException as error:
                if error.status != 404:
                    raise
