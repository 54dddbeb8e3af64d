-- Health of a DKIMKey (posthof.dev), for Argo CD.
-- Paused is Suspended; what nobody has looked at since the last change is Progressing; Stalled is Degraded; else the
-- condition Ready decides. Its message says what to do.
local health = { status = "Progressing", message = "Waiting for the operator to look at it" }

local annotations = obj.metadata.annotations
if annotations ~= nil and annotations["posthof.dev/paused"] ~= nil then
  return { status = "Suspended", message = "Paused: remove the annotation posthof.dev/paused" }
end
if obj.metadata.deletionTimestamp ~= nil then
  return { status = "Progressing", message = "It is being deleted" }
end
if obj.status == nil or obj.status.conditions == nil then
  return health
end
if obj.status.observedGeneration ~= nil and obj.status.observedGeneration ~= obj.metadata.generation then
  return health
end

local found = {}
for _, condition in ipairs(obj.status.conditions) do
  found[condition.type] = condition
end

if found.Stalled ~= nil and found.Stalled.status == "True" then
  return { status = "Degraded", message = found.Stalled.message }
end
local ready = found.Ready
if ready == nil then
  return health
end
if found.Reconciling ~= nil and found.Reconciling.status == "True" then
  return { status = "Progressing", message = found.Reconciling.message }
end
if ready.observedGeneration ~= nil and ready.observedGeneration ~= obj.metadata.generation then
  return health
end
if ready.status == "True" then
  return { status = "Healthy", message = ready.message }
end
if ready.status == "False" then
  return { status = "Degraded", message = ready.message }
end
return { status = "Progressing", message = ready.message }
