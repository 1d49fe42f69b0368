"""Where workspaces come from: one module a provider, and the interface (`base`) that all of them implement."""
