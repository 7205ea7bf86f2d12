"""HTTP: routes, middleware, the queue, and responses that generate while they are sent."""
