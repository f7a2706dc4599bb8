// Relative URLs: the page works below any path prefix. `validatorUrl: null`: the document is sent to no other host.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  validatorUrl: null,
});
