// Command peer is the operator that ours is measured against: what a controller-runtime operator of the same
// job looks like when it is written to be fast and to write little.
package main

import (
	"context"
	"errors"
	"flag"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
)

type options struct {
	namespace, children, metricsAddress, probeAddress string
	workers                                           int
}

func main() {
	var o options
	flag.StringVar(&o.namespace, "namespace", "", "the only namespace to watch; all of them when empty")
	flag.StringVar(&o.children, "children", "children.json", "file with the templates of the children")
	flag.StringVar(&o.metricsAddress, "metrics-bind-address", "0", "address of /metrics; 0 for none")
	flag.StringVar(&o.probeAddress, "health-probe-bind-address", ":8081", "address of /healthz and /readyz")
	flag.IntVar(&o.workers, "max-concurrent-reconciles", 8, "agents reconciled at the same time")
	flag.Parse()
	ctrl.SetLogger(zap.New())
	if err := run(ctrl.SetupSignalHandler(), o); err != nil {
		ctrl.Log.Error(err, "the operator stopped")
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	children, err := loadChildren(o.children)
	if err != nil {
		return err
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	config.QPS = -1 // the API server's priority and fairness decides, not this client
	mgr, err := ctrl.NewManager(config, managerOptions(o))
	if err != nil {
		return err
	}
	if err := addProbes(mgr); err != nil {
		return err
	}
	r := &reconciler{Client: mgr.GetClient(), children: children}
	err = ctrl.NewControllerManagedBy(mgr).
		// The status is written by nobody else, so only a new spec matters.
		For(&PeerAgent{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		// No predicate here: the status of the Deployment is what the parent's is made from.
		Owns(&appsv1.Deployment{}).
		Owns(&corev1.ConfigMap{}, builder.OnlyMetadata).
		Owns(&corev1.Service{}, builder.OnlyMetadata).
		Owns(&policyv1.PodDisruptionBudget{}, builder.OnlyMetadata).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: o.workers,
			ReconciliationTimeout:   time.Minute,
		}).
		Complete(r)
	if err != nil {
		return err
	}
	return mgr.Start(ctx)
}

func managerOptions(o options) ctrl.Options {
	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(addToScheme(scheme))
	owned, err := labels.Parse(agentLabel)
	utilruntime.Must(err)
	cached := cache.Options{
		DefaultLabelSelector: owned,
		DefaultTransform:     trim,
		ByObject:             map[client.Object]cache.ByObject{&PeerAgent{}: {Label: labels.Everything()}},
	}
	if o.namespace != "" {
		cached.DefaultNamespaces = map[string]cache.Config{o.namespace: {}}
	}
	return ctrl.Options{
		Scheme:                 scheme,
		Cache:                  cached,
		Metrics:                server.Options{BindAddress: o.metricsAddress},
		HealthProbeBindAddress: o.probeAddress,
		// A read waits until the cache has seen this process's own write, so nothing is written twice.
		Client: client.Options{
			Cache: &client.CacheOptions{EnableReadYourWritesConsistency: ptr.To(true)},
		},
	}
}

// trim drops from the cache what no reconcile reads.
func trim(obj any) (any, error) {
	if m, err := meta.Accessor(obj); err == nil {
		m.SetManagedFields(nil)
		if annotations := m.GetAnnotations(); annotations[hashAnnotation] != "" {
			m.SetAnnotations(map[string]string{hashAnnotation: annotations[hashAnnotation]})
		}
	}
	if d, ok := obj.(*appsv1.Deployment); ok {
		d.Spec = appsv1.DeploymentSpec{}
	}
	return obj, nil
}

// addProbes makes the process ready once its caches are filled.
func addProbes(mgr ctrl.Manager) error {
	var synced atomic.Bool
	ready := func(*http.Request) error {
		if !synced.Load() {
			return errors.New("the caches are being filled")
		}
		return nil
	}
	return errors.Join(
		mgr.AddHealthzCheck("ping", func(*http.Request) error { return nil }),
		mgr.AddReadyzCheck("caches", ready),
		mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
			synced.Store(mgr.GetCache().WaitForCacheSync(ctx))
			return nil
		})),
	)
}
