"""The compiled form: a copy of the packages whose hot modules are extension modules. The product never imports it."""
