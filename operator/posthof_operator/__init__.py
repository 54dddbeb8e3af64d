"""The operator: custom resources -> what the cluster shall hold. Never on a message's path."""
