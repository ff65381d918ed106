#!lua flags=allow-oom
-- Counts the calls that waited for a run whose failure is about to be stored, unless its release has counted them.
-- Libraries: experiments/sums.
-- Arguments:
--   id     of the task
--   fence  of the run, '' for none
--   queue  the variant's
-- Reply: 1; 0 if another run has taken the job.
if not may_change(id, fence) then
  return 0
end
fail_exposures(queue, id, 0)
return 1
