// cert-manager runs those controllers of cert-manager that answer a CertificateRequest with a CA issuer: the approver, the signer of CA issuers, and
// what sets the conditions of issuers. They are cert-manager's own packages. Its cmd/controller is a Go module of its own, which no module proxy
// has. Its webhook does not run: nothing writes defaults into objects, and what it checks of a CertificateRequest the signer checks too.
//
// Usage: cert-manager kubeconfig
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/cert-manager/cert-manager/pkg/controller"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	_ "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"
	_ "github.com/cert-manager/cert-manager/pkg/controller/clusterissuers"
	_ "github.com/cert-manager/cert-manager/pkg/controller/issuers"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "cert-manager:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("usage: cert-manager kubeconfig")
	}
	factory, err := controller.NewContextFactory(ctx, controller.ContextOptions{
		Kubeconfig: args[0],
		// where the Secrets of ClusterIssuers are
		IssuerOptions: controller.IssuerOptions{ClusterResourceNamespace: "cert-manager"},
	})
	if err != nil {
		return err
	}
	shared, err := factory.Build()
	if err != nil {
		return err
	}
	var controllers []controller.Interface
	for name, build := range controller.Known() {
		one, err := build(factory)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		controllers = append(controllers, one)
	}
	// the informers of all controllers, which are known now
	shared.SharedInformerFactory.Start(ctx.Done())
	shared.KubeSharedInformerFactory.Start(ctx.Done())
	failures := make([]error, len(controllers))
	var running sync.WaitGroup
	for i, one := range controllers {
		running.Go(func() { failures[i] = one.Run(1, ctx) })
	}
	running.Wait()
	return errors.Join(failures...)
}
