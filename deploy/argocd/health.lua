-- Argo CD's health of an IstioVaultCA; what it says in which state: docs/gitops.md. It needs no open libraries.
-- After a change: npm run generate, which writes it into argocd-cm-patch.yaml.
if obj.metadata.deletionTimestamp ~= nil then
  return { status = "Progressing", message = "being deleted" }
end
if obj.spec ~= nil and obj.spec.suspend == true then
  return { status = "Suspended", message = "spec.suspend is true" }
end

local status = obj.status or {}
if status.conditions == nil or status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "waiting for the operator to look at it" }
end
local conditions = {}
for _, condition in ipairs(status.conditions) do
  conditions[condition.type] = condition
end
local function holds(name)
  return conditions[name] ~= nil and conditions[name].status == "True"
end

if holds("Stalled") then
  return { status = "Degraded", message = conditions.Stalled.reason .. ": " .. conditions.Stalled.message }
end
local ready = conditions.Ready
if ready == nil then
  return { status = "Progressing", message = "waiting for condition Ready" }
end
-- the CA is there, and istiod or what brings it is not yet: it may come in a later wave
local waits = { IstiodNotFound = true, ControlPlaneNotFound = true, AwaitingCommit = true }
local healthy = holds("Ready") or (holds("Provisioned") and waits[ready.reason])
return { status = healthy and "Healthy" or "Progressing", message = ready.reason .. ": " .. ready.message }
