"""Many runs: planners say which are wanted, a ledger how they ended, a scheduler does them."""
