-- include common.lua
-- include storing.lua
-- Stores outcomes. ARGV: P, prefix of results, number, outcomes (see store).
store(4, tonumber(ARGV[3]), ARGV[2])
return 1
