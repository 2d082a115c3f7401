-- include common.lua
-- include join.lua
-- Begins, feeds and closes joins. ARGV: P, prefix of groups, number, groups (see joins).
-- Answers joins and members that fired.
local _, fired = joins(4, tonumber(ARGV[3]), ARGV[2], true)
return fired
