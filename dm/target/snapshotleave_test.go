package target

import (
	"testing"
)

// A view may leave while the others are told that the snapshot is lost.
func TestViewsLeaveWhileTheSnapshotFails(t *testing.T) {
	c := &cow{refs: 2}
	told := 0
	var views []*view
	for range 2 {
		v := &view{cow: c}
		v.raise = func(string) {
			told++
			v.detach()
			c.refs++ // the last would need an origin
		}
		views = append(views, v)
	}
	c.views = views
	views[0].invalidate(t.Context(), "a test")
	if told != 2 {
		t.Errorf("%d views were told, want both", told)
	}
	if v := c.acquire(); v != nil {
		t.Errorf("view %p is still there", v)
	}
}
