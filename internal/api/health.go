package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"resource-lock-manager/internal/service"
	"resource-lock-manager/internal/wire"
)

// health reports that the process serves requests.
//
//	@Summary		Health check
//	@Description	Responds while the process serves requests. It does not check the database; see /readyz for that.
//	@Tags			health
//	@Produce		json
//	@Success		200	{object}	wire.Health
//	@Router			/health [get]
func health(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, wire.Health{Status: "healthy", Service: "Resource Lock Manager"})
}

// livez is the liveness probe.
//
//	@Summary		Liveness probe
//	@Description	Responds while the process serves requests. Restart the process if it does not respond.
//	@Tags			health
//	@Produce		json
//	@Success		200	{object}	wire.Probe
//	@Router			/livez [get]
func livez(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, wire.Probe{Status: "ok"})
}

// readyz is the readiness probe.
//
//	@Summary		Readiness probe
//	@Description	Checks the database. Send this server no requests while it responds with 503.
//	@Tags			health
//	@Produce		json
//	@Success		200	{object}	wire.Probe
//	@Failure		503	{object}	wire.Failure	"the database does not answer"
//	@Router			/readyz [get]
func (a *API) readyz(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := a.ping(ctx); err != nil {
		return fmt.Errorf("%w: %w", service.ErrUnavailable, err)
	}
	writeJSON(w, http.StatusOK, wire.Probe{Status: "ok"})
	return nil
}
