package main

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const peerKind = "PeerAgent"

var groupVersion = schema.GroupVersion{Group: "bench.agentoperator.dev", Version: "v1"}

// PeerAgent is the peer's AgentDeployment.
type PeerAgent struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   PeerAgentSpec   `json:"spec,omitempty"`
	Status PeerAgentStatus `json:"status,omitempty"`
}

type PeerAgentSpec struct {
	Replicas *int32 `json:"replicas,omitempty"`
}

type PeerAgentStatus struct {
	ObservedGeneration int64              `json:"observedGeneration,omitempty"`
	ReadyReplicas      int32              `json:"readyReplicas"`
	Conditions         []metav1.Condition `json:"conditions,omitempty"`
}

type PeerAgentList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []PeerAgent `json:"items"`
}

func addToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(groupVersion, &PeerAgent{}, &PeerAgentList{})
	metav1.AddToGroupVersion(scheme, groupVersion)
	return nil
}

func (a *PeerAgent) replicas() int32 {
	if a.Spec.Replicas == nil {
		return 1
	}
	return *a.Spec.Replicas
}

// The conditions hold no pointers, so copying their slice copies all of them.
func (s PeerAgentStatus) deepCopy() PeerAgentStatus {
	s.Conditions = slices.Clone(s.Conditions)
	return s
}

func (a *PeerAgent) DeepCopyObject() runtime.Object {
	copied := *a
	a.ObjectMeta.DeepCopyInto(&copied.ObjectMeta)
	if a.Spec.Replicas != nil {
		copied.Spec.Replicas = new(*a.Spec.Replicas)
	}
	copied.Status = a.Status.deepCopy()
	return &copied
}

func (l *PeerAgentList) DeepCopyObject() runtime.Object {
	copied := *l
	l.ListMeta.DeepCopyInto(&copied.ListMeta)
	copied.Items = make([]PeerAgent, len(l.Items))
	for i := range l.Items {
		copied.Items[i] = *l.Items[i].DeepCopyObject().(*PeerAgent)
	}
	return &copied
}
