package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	hashPlaceholder     = "${HASH}"
	replicasPlaceholder = `"${REPLICAS}"` // with its quotes: a number takes their place
)

// template is one child with placeholders, as JSON text.
type template struct {
	kind        schema.GroupVersionKind
	name        string
	minReplicas int32
	text        string
}

// child is a template filled in for one agent.
type child struct {
	kind            schema.GroupVersionKind
	namespace, name string
	wanted          bool
	hash            string
	body            []byte
}

func loadChildren(path string) ([]template, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var entries []struct {
		MinReplicas int32           `json:"minReplicas"`
		Object      json.RawMessage `json:"object"`
	}
	if err := json.Unmarshal(content, &entries); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var templates []template
	for _, entry := range entries {
		var head metav1.PartialObjectMetadata
		var text bytes.Buffer
		if err := json.Unmarshal(entry.Object, &head); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if err := json.Compact(&text, entry.Object); err != nil {
			return nil, err
		}
		templates = append(templates, template{head.GroupVersionKind(), head.Name, entry.MinReplicas, text.String()})
	}
	return templates, nil
}

func (t *template) render(agent *PeerAgent) child {
	fill := strings.NewReplacer(
		"${NAME}", agent.Name,
		"${NAMESPACE}", agent.Namespace,
		"${UID}", string(agent.UID),
		replicasPlaceholder, strconv.Itoa(int(agent.replicas())),
	)
	c := child{
		kind:      t.kind,
		namespace: agent.Namespace,
		name:      fill.Replace(t.name),
		wanted:    agent.replicas() >= t.minReplicas,
	}
	if c.wanted {
		text := fill.Replace(t.text)
		sum := sha256.Sum256([]byte(text))
		c.hash = hex.EncodeToString(sum[:8])
		c.body = []byte(strings.Replace(text, hashPlaceholder, c.hash, 1))
	}
	return c
}

// empty is the object to read the child into: whole for the Deployment, whose status is needed, else the
// metadata alone.
func (c child) empty() client.Object {
	names := metav1.ObjectMeta{Namespace: c.namespace, Name: c.name}
	if c.kind == appsv1.SchemeGroupVersion.WithKind("Deployment") {
		return &appsv1.Deployment{ObjectMeta: names}
	}
	object := &metav1.PartialObjectMetadata{ObjectMeta: names}
	object.SetGroupVersionKind(c.kind)
	return object
}
