// The API's description, readable: what /openapi.json says, drawn by Swagger UI.

window.SwaggerUIBundle({
  url: '/openapi.json',
  dom_id: '#docs',
  deepLinking: true,
  validatorUrl: null, // it would send our description to another host
});
