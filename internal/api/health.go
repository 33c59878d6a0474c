package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"resource-lock-manager/internal/lock"
	"resource-lock-manager/internal/wire"
)

// health tells that the service runs.
//
//	@Summary		Health check
//	@Description	Answers as long as the process serves requests; it does not ask the database. See /readyz for that.
//	@Tags			health
//	@Produce		json
//	@Success		200	{object}	wire.Health
//	@Router			/health [get]
func (a *API) health(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, wire.Health{Status: "healthy", Service: "Resource Lock Manager"})
}

// livez is the liveness probe.
//
//	@Summary		Liveness probe
//	@Description	Answers as long as the process serves requests. Restart the process when it does not.
//	@Tags			health
//	@Produce		json
//	@Success		200	{object}	wire.Probe
//	@Router			/livez [get]
func (a *API) livez(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, wire.Probe{Status: "ok"})
}

// readyz is the readiness probe.
//
//	@Summary		Readiness probe
//	@Description	Asks the database. Send this server no requests while it answers 503.
//	@Tags			health
//	@Produce		json
//	@Success		200	{object}	wire.Probe
//	@Failure		503	{object}	wire.Failure	"the database does not answer"
//	@Router			/readyz [get]
func (a *API) readyz(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := a.ping(ctx); err != nil {
		return fmt.Errorf("%w: %w", lock.ErrUnavailable, err)
	}
	writeJSON(w, http.StatusOK, wire.Probe{Status: "ok"})
	return nil
}
