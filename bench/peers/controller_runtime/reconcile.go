package main

import (
	"context"
	"encoding/json"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

const (
	agentLabel     = "agentoperator.dev/agent"
	hashAnnotation = "agentoperator.dev/applied-hash"
	fieldOwner     = client.FieldOwner("peer-agent")
)

type reconciler struct {
	client.Client
	children []template
}

// Reconcile brings the children and the status of one agent to what its spec says. All reads are from the
// cache; a child is written when it is missing or carries another hash than the one it is rendered with now.
func (r *reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	agent := &PeerAgent{}
	if err := r.Get(ctx, req.NamespacedName, agent); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !agent.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil // the garbage collector removes the children
	}
	deployment := &appsv1.Deployment{}
	for i := range r.children {
		child := r.children[i].render(agent)
		live := child.empty()
		if d, ok := live.(*appsv1.Deployment); ok {
			deployment = d
		}
		if err := r.ensure(ctx, child, live); err != nil {
			return ctrl.Result{}, fmt.Errorf("%s %s: %w", child.kind.Kind, child.name, err)
		}
	}
	return ctrl.Result{}, r.report(ctx, agent, deployment)
}

// ensure applies or deletes one child where that is needed; live is what exists afterwards.
func (r *reconciler) ensure(ctx context.Context, child child, live client.Object) error {
	err := r.Get(ctx, client.ObjectKeyFromObject(live), live)
	found := err == nil
	switch {
	case client.IgnoreNotFound(err) != nil:
		return err
	case !child.wanted:
		if !found || !live.GetDeletionTimestamp().IsZero() {
			return nil
		}
		uid := live.GetUID()
		err := r.Delete(ctx, live, client.Preconditions{UID: &uid})
		return client.IgnoreNotFound(err)
	case found && live.GetAnnotations()[hashAnnotation] == child.hash:
		return nil
	}
	log.FromContext(ctx).V(1).Info("apply", "kind", child.kind.Kind, "name", child.name, "exists", found)
	patch := client.RawPatch(types.ApplyPatchType, child.body)
	return r.Patch(ctx, live, patch, fieldOwner, client.ForceOwnership)
}

// report writes the status if it says something new.
func (r *reconciler) report(ctx context.Context, agent *PeerAgent, deployment *appsv1.Deployment) error {
	status := agent.Status.deepCopy()
	status.ObservedGeneration = agent.Generation
	status.ReadyReplicas = deployment.Status.ReadyReplicas
	condition := metav1.Condition{
		Type:               "Ready",
		Status:             metav1.ConditionFalse,
		Reason:             "Progressing",
		Message:            fmt.Sprintf("%d of %d replicas are ready", status.ReadyReplicas, agent.replicas()),
		ObservedGeneration: agent.Generation,
	}
	if status.ReadyReplicas >= agent.replicas() {
		condition.Status, condition.Reason = metav1.ConditionTrue, "Available"
	}
	meta.SetStatusCondition(&status.Conditions, condition)
	if equality.Semantic.DeepEqual(agent.Status, status) {
		return nil
	}
	body, err := json.Marshal(map[string]any{
		"apiVersion": groupVersion.String(),
		"kind":       peerKind,
		// The uid keeps the status of a deleted agent from its successor of the same name.
		"metadata": map[string]any{"name": agent.Name, "namespace": agent.Namespace, "uid": agent.UID},
		"status":   status,
	})
	if err != nil {
		return err
	}
	target := &PeerAgent{ObjectMeta: metav1.ObjectMeta{Name: agent.Name, Namespace: agent.Namespace}}
	patch := client.RawPatch(types.ApplyPatchType, body)
	err = r.Status().Patch(ctx, target, patch, fieldOwner, client.ForceOwnership)
	return client.IgnoreNotFound(err)
}
