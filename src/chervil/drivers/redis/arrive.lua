-- include common.lua
-- include join.lua
-- Begins, feeds and closes joins. ARGV: P, prefix of groups, now (Unix s), number,
-- groups (see joins).
-- Answers joins and members that fired.
local _, fired = joins(5, tonumber(ARGV[4]), ARGV[2], ARGV[3])
return fired
