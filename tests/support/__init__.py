"""What tests share: upstreams that misbehave on demand, gateways in this process and in one of their own."""
