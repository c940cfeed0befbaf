"""The API's description (`openapi.json`) and the page that shows it."""
