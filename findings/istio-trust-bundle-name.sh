#!/usr/bin/env bash
# Subject:     istio.io/istio 1.31 development (2026-08-27): chart istio-discovery, and istiod's publisher of ClusterTrustBundles
# One expects: with global.trustBundleName and ENABLE_CLUSTER_TRUST_BUNDLE_API, istiod publishes the bundle that the chart's volumes name.
# What is so:  the volumes name istio.io:istiod-ca:<trustBundleName>. istiod has no setting for the name and publishes
#              istio.io:istiod-ca:root-cert. The volume of istiod's own Pod is optional, so nothing fails there; PILOT_CA_CERT_CONFIGMAP,
#              which the chart sets from the same value, has no effect. Without trustBundleName both names are equal.
# Source:      github.com/istio/istio, manifests/charts/istio-control/istio-discovery/templates/deployment.yaml and
#              pilot/pkg/config/kube/clustertrustbundle/controller.go
source "$(dirname "$0")/lib.sh"
istio=v0.0.0-20260827124520-eed52ebb66ad
install go:istio.io/istio/operator/pkg/helm@$istio go:istio.io/istio/pilot/pkg/config/kube/clustertrustbundle@$istio

cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"regexp"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"istio.io/istio/operator/pkg/helm"
	"istio.io/istio/operator/pkg/values"
	"istio.io/istio/pilot/pkg/config/kube/clustertrustbundle"
	"istio.io/istio/pilot/pkg/keycertbundle"
	"istio.io/istio/pkg/kube"
)

var volume = regexp.MustCompile(`clusterTrustBundle:\s+name: (\S+)`)

func main() {
	for _, name := range []any{nil, "team-a"} {
		global := map[string]any{"istioNamespace": "istio-system"}
		if name != nil {
			global["trustBundleName"] = name
		}
		chart := map[string]any{
			"global": global,
			"pilot":  map[string]any{"env": map[string]any{"ENABLE_CLUSTER_TRUST_BUNDLE_API": true}},
		}
		all := values.Map{"spec": map[string]any{"values": chart}}
		objects, _, err := helm.Render("istio", "istio-system", "istio-control/istio-discovery", all, nil)
		if err != nil {
			panic(err)
		}
		for _, object := range objects {
			if object.GetKind() != "Deployment" {
				continue
			}
			fmt.Printf("trustBundleName %v: istiod mounts %s\n", name, volume.FindStringSubmatch(object.Content)[1])
		}
	}

	client := kube.NewFakeClient()
	stop := make(chan struct{})
	defer close(stop)
	watcher := keycertbundle.NewWatcher()
	watcher.SetAndNotify(nil, nil, []byte("roots"))
	controller := clustertrustbundle.NewController(client, watcher)
	client.RunAndWait(stop)
	go controller.Run(stop)
	for {
		list, err := client.Kube().CertificatesV1beta1().ClusterTrustBundles().List(context.Background(), metav1.ListOptions{})
		if err != nil {
			panic(err)
		}
		if len(list.Items) > 0 {
			fmt.Printf("istiod publishes %s\n", list.Items[0].Name)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}
GO
version "$(go list -m istio.io/istio)"
expect "names" 'trustBundleName <nil>: istiod mounts istio.io:istiod-ca:root-cert
trustBundleName team-a: istiod mounts istio.io:istiod-ca:team-a
istiod publishes istio.io:istiod-ca:root-cert' "$(PILOT_CA_CERT_CONFIGMAP=team-a ENABLE_CLUSTER_TRUST_BUNDLE_API=true go run . 2>&1 | grep -E '^(trustBundleName|istiod) ')"
