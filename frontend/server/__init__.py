"""HTTP: routes, middleware, the queue, and answers that generate while they are sent."""
